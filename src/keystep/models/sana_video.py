"""SANA-Video (arXiv 2509.24695): linear attention, convolutions for an MLP; guidance in one batch."""

from keystep.models.spec import ModelSpec

SANA_VIDEO = ModelSpec(
    name="sana-video",
    transformer="SanaVideoTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states",),
    exit="norm_out",
    attention={"self": "transformer_blocks.{}.attn1", "cross": "transformer_blocks.{}.attn2"},
    residual={"self": "transformer_blocks.{}.attn2"},
    mlp={"self": "transformer_blocks.{}.ff"},
    norms={"attn1": "norm1", "ff": "norm2"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "guidance", "encoder_attention_mask"),
    guidance="batched:uncond,cond",
    time="time_embed.emb.timestep_embedder",
)
