"""Wan 2.1 and 2.2 (arXiv 2503.20314): one call per guidance branch; 2.2 has two transformers for high and low
noise. What was built on it has its blocks, and names of its own: VACE (arXiv 2503.07598), ChronoEdit (arXiv
2510.04290), SkyReels-V2 (arXiv 2504.13074).
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
    rows=("hidden_states", "timestep", "encoder_hidden_states", "encoder_hidden_states_image"),
    guidance="separate:cond,uncond",
    time="condition_embedder.time_embedder",
)
# Blocks of their own turn the control video into hints before the others.
VACE = replace(WAN, name="wan-vace", transformer="WanVACETransformer3DModel", hints="vace_blocks")
CHRONOEDIT = replace(WAN, name="chronoedit", transformer="ChronoEditTransformer3DModel")
SKYREELS = replace(WAN, name="skyreels-v2", transformer="SkyReelsV2Transformer3DModel")
