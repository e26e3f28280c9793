"""Latte (arXiv 2401.03048): spatial and temporal blocks interleaved, guidance in one batch."""

from keystep.models.spec import ModelSpec

LATTE = ModelSpec(
    name="latte",
    transformer="LatteTransformer3DModel",
    blocks=("transformer_blocks", "temporal_transformer_blocks"),
    streams=("hidden_states",),
    exit="norm_out",
    attention={
        "spatial": "transformer_blocks.{}.attn1",
        "temporal": "temporal_transformer_blocks.{}.attn1",
        "cross": "transformer_blocks.{}.attn2",
    },
    residual={"temporal": "temporal_transformer_blocks.{}.norm2"},
    mlp={"spatial": "transformer_blocks.{}.ff", "temporal": "temporal_transformer_blocks.{}.ff"},
    norms={"attn1": "norm1", "ff": "norm2"},
    rows=("hidden_states", "timestep", "encoder_hidden_states", "encoder_attention_mask"),
    guidance="batched:uncond,cond",
    time="adaln_single.emb.timestep_embedder",
)
