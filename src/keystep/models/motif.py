"""Motif-Video (Motif Technologies): HunyuanVideo's two kinds of blocks, and more attention to the text."""

from dataclasses import replace

from keystep.models.hunyuan import HUNYUAN

MOTIF = replace(
    HUNYUAN,
    name="motif",
    transformer="MotifVideoTransformer3DModel",
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "image_embeds",
    ),
)
