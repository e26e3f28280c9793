"""Wan 2.1 and 2.2 (arXiv 2503.20314): one call per guidance branch; 2.2 has two transformers for high and low
noise.
"""

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
