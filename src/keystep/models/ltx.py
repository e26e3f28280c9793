"""LTX-Video (arXiv 2501.00103): latents packed into tokens, guidance in one batch."""

from keystep.models.spec import PACKED, ModelSpec

LTX = ModelSpec(
    name="ltx",
    transformer="LTXVideoTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states",),
    exit="norm_out",
    attention={"self": "transformer_blocks.{}.attn1", "cross": "transformer_blocks.{}.attn2"},
    residual={"self": "transformer_blocks.{}.attn2"},
    mlp={"self": "transformer_blocks.{}.ff"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask", "video_coords"),
    guidance="batched:uncond,cond",
    latent=PACKED,
    time="time_embed.emb.timestep_embedder",
)
