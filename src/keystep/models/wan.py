"""Wan 2.1 and 2.2 (arXiv 2503.20314): one call per guidance branch; 2.2 has two transformers for high and low
noise. What was built on it has its blocks, and names of its own: VACE (arXiv 2503.07598), ChronoEdit (arXiv
2510.04290), SkyReels-V2 (arXiv 2504.13074), Wan-Animate (arXiv 2509.14055), Helios, AnyFlow (arXiv
2605.13724).
"""

from dataclasses import replace

from keystep.models.spec import ModelSpec

WAN = ModelSpec(
    name="wan",
    transformer="WanTransformer3DModel",
    blocks=("blocks",),
    streams=("hidden_states",),
    exit="norm_out",
    attention={"self": "blocks.{}.attn1", "cross": "blocks.{}.attn2"},
    residual={"self": "blocks.{}.norm2"},
    mlp={"self": "blocks.{}.ffn"},
    norms={"attn1": "norm1", "attn2": "norm2", "ffn": "norm3"},
    rows=("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_image"),
    guidance="separate:cond,uncond",
    time="condition_embedder.time_embedder",
)
# Blocks of their own turn the control video into hints before the others.
VACE = replace(WAN, name="wan-vace", transformer="WanVACETransformer3DModel", hints={"vace_blocks": 2})
CHRONOEDIT = replace(WAN, name="chronoedit", transformer="ChronoEditTransformer3DModel")
SKYREELS = replace(WAN, name="skyreels-v2", transformer="SkyReelsV2Transformer3DModel")
# The face's motion is added behind every fifth block by blocks of their own.
ANIMATE = replace(
    WAN, name="wan-animate", transformer="WanAnimateTransformer3DModel", hints={"face_adapter": 1}
)
# Sections of a video are generations of their own; tokens of earlier ones stand in front of the others.
HELIOS = replace(WAN, name="helios", transformer="HeliosTransformer3DModel", rows=WAN.rows[:3], time="")
ANYFLOW = replace(
    WAN,
    name="anyflow",
    transformer="AnyFlowTransformer3DModel",
    rows=("hidden_states", "timestep", "r_timestep", "encoder_hidden_states", "encoder_hidden_states_image"),
    guidance="batched:uncond,cond",
    latent="BTCHW",
    time="",
)
