"""Allegro (arXiv 2410.15458): attention over all frames, then over the text; guidance in one batch."""

from keystep.models.spec import ModelSpec

ALLEGRO = ModelSpec(
    name="allegro",
    transformer="AllegroTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states",),
    exit="norm_out",
    attention={"self": "transformer_blocks.{}.attn1", "cross": "transformer_blocks.{}.attn2"},
    residual={"self": "transformer_blocks.{}.attn2"},
    mlp={"self": "transformer_blocks.{}.ff"},
    norms={"attn1": "norm1", "ff": "norm2"},
    rows=(
        "hidden_states",
        "encoder_hidden_states",
        "timestep",
        "attention_mask",
        "encoder_attention_mask",
    ),
    guidance="batched:uncond,cond",
    time="adaln_single.emb.timestep_embedder",
)
