"""Kandinsky 5 (arXiv 2511.14993): channels last; its exit sees the tokens folded into frames again."""

from keystep.models.spec import ModelSpec

KANDINSKY5 = ModelSpec(
    name="kandinsky-5",
    transformer="Kandinsky5Transformer3DModel",
    blocks=("visual_transformer_blocks",),
    streams=("visual_embed",),
    exit="",
    attention={
        "self": "visual_transformer_blocks.{}.self_attention",
        "cross": "visual_transformer_blocks.{}.cross_attention",
    },
    residual={"self": "visual_transformer_blocks.{}.cross_attention_norm"},
    mlp={"self": "visual_transformer_blocks.{}.feed_forward"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections"),
    guidance="separate:cond,uncond",
    latent="BTHWC",
    time="time_embeddings",
)
