"""Open-Sora 1.2 (arXiv 2412.20404): spatial and temporal blocks interleaved, guidance in one batch."""

from keystep.models.spec import ModelSpec

OPENSORA = ModelSpec(
    name="opensora",
    transformer="STDiT3",
    blocks=("spatial_blocks", "temporal_blocks"),
    streams=("hidden_states",),
    exit="final_layer",
    attention={
        "spatial": "spatial_blocks.{}.attn",
        "temporal": "temporal_blocks.{}.attn",
        "spatial-cross": "spatial_blocks.{}.cross_attn",
        "temporal-cross": "temporal_blocks.{}.cross_attn",
    },
    residual={"temporal": "temporal_blocks.{}.cross_attn", "spatial": "spatial_blocks.{}.cross_attn"},
    mlp={"spatial": "spatial_blocks.{}.mlp", "temporal": "temporal_blocks.{}.mlp"},
    norms={"attn": "norm1", "mlp": "norm2"},
    rows=(
        "hidden_states",
        "timestep",
        "encoder_hidden_states",
        "fps",
        "height",
        "width",
        "encoder_attention_mask",
        "frame_mask",
    ),
    guidance="batched:cond,uncond",
)
