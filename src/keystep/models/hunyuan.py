"""HunyuanVideo (arXiv 2412.03603) and 1.5 (arXiv 2511.18870): blocks that treat text and video apart, in 1
followed by blocks over both. A call for each guidance branch: most often one, for 1 is given the scale; in
1.5 a guider decides.
"""

from dataclasses import replace

from keystep.models.spec import ModelSpec

HUNYUAN = ModelSpec(
    name="hunyuanvideo",
    transformer="HunyuanVideoTransformer3DModel",
    blocks=("transformer_blocks", "single_transformer_blocks"),
    order="sequential",
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_out",
    attention={"joint": "transformer_blocks.{}.attn", "single-joint": "single_transformer_blocks.{}.attn"},
    residual={"joint": "transformer_blocks.{}.norm2"},
    mlp={"joint": "transformer_blocks.{}.ff"},
    norms={"ff": "norm2"},
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "pooled_projections",
        "guidance",
    ),
    guidance="separate:cond,uncond",
    guided="calls",
    time="time_text_embed.timestep_embedder",
)
# FramePack (arXiv 2504.12626): its sections of a video are generations of their own; tokens of earlier ones
# stand in front of the others, and the exit does not see them.
FRAMEPACK = replace(HUNYUAN, name="framepack", transformer="HunyuanVideoFramepackTransformer3DModel", exit="")
HUNYUAN15 = replace(
    HUNYUAN,
    name="hunyuanvideo-1.5",
    transformer="HunyuanVideo15Transformer3DModel",
    blocks=("transformer_blocks",),
    attention={"joint": "transformer_blocks.{}.attn"},
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "encoder_attention_mask",
        "timestep_r",
        "encoder_hidden_states_2",
        "encoder_attention_mask_2",
        "image_embeds",
    ),
    time="time_embed",
)
