"""Kandinsky 5 (arXiv 2511.14993) and 6: channels last; the exit sees the tokens folded into frames again.

6 makes the audio along with the video.
"""

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
    norms={
        "self_attention": "self_attention_norm",
        "cross_attention": "cross_attention_norm",
        "feed_forward": "feed_forward_norm",
    },
    rows=("hidden_states", "encoder_hidden_states", "timestep", "pooled_projections"),
    guidance="separate:cond,uncond",
    latent="BTHWC",
    time="time_embeddings",
)
KANDINSKY6 = ModelSpec(
    name="kandinsky-6",
    transformer="Kandinsky6Transformer3DModel",
    blocks=("visual_transformer_blocks",),
    streams=("vis", "aud"),
    exit="",
    attention={
        "self": "visual_transformer_blocks.{}.video_dec_block.self_attention",
        "cross": "visual_transformer_blocks.{}.video_dec_block.cross_attention",
    },
    residual={"self": "visual_transformer_blocks.{}.video_dec_block.cross_attention_norm"},
    mlp={"self": "visual_transformer_blocks.{}.video_dec_block.feed_forward"},
    rows=(
        "hidden_states",
        "audio_hidden_states",
        "encoder_hidden_states",
        "pooled_projections",
        "timestep",
        "encoder_attention_mask",
    ),
    guidance="separate:cond,uncond",
    latent="BTHWC",
    outputs=("hidden_states", "audio_hidden_states"),
    time="video_time_embeddings",
)
