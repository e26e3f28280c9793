"""Motif-Video (Motif Technologies): HunyuanVideo's two kinds of blocks, and more attention to the text."""

from keystep.models.spec import ModelSpec

MOTIF = ModelSpec(
    name="motif",
    transformer="MotifVideoTransformer3DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    order="sequential",
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_out",
    attention={"joint": "transformer_blocks.{}.attn", "single-joint": "single_transformer_blocks.{}.attn"},
    residual={"joint": "transformer_blocks.{}.norm2"},
    mlp={"joint": "transformer_blocks.{}.ff"},
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "image_embeds",
    ),
    guidance="separate:cond,uncond",
    guided="calls",
    time="time_text_embed.timestep_embedder",
)
