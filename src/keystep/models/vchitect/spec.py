"""Vchitect-2.0 (arXiv 2501.08453): one attention module over space, time and text; a call per branch."""

from keystep.models.spec import ModelSpec

VCHITECT = ModelSpec(
    name="vchitect",
    transformer="VchitectTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_out",
    attention={"joint": "transformer_blocks.{}.attn"},
    residual={"joint": "transformer_blocks.{}.norm2"},
    mlp={"joint": "transformer_blocks.{}.ff"},
    norms={"ff": "norm2"},
    rows=("hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"),
    guidance="separate:cond,uncond",
    latent="BTCHW",
)
