"""Mochi 1 (github.com/genmoai/mochi): joint attention over text and video, guidance in one batch."""

from keystep.models.spec import ModelSpec

MOCHI = ModelSpec(
    name="mochi",
    transformer="MochiTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_out",
    attention={"joint": "transformer_blocks.{}.attn1"},
    residual={"joint": "transformer_blocks.{}.norm3"},
    mlp={"joint": "transformer_blocks.{}.ff"},
    norms={"ff": "norm3"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask"),
    guidance="batched:uncond,cond",
    time="time_embed.timestep_embedder",
)
