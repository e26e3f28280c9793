"""CogVideoX 2B, 5B and 1.5 (arXiv 2408.06072): joint attention over text and video, guidance in one batch."""

from dataclasses import replace

from keystep.models.spec import ModelSpec

COGVIDEOX = ModelSpec(
    name="cogvideox",
    transformer="CogVideoXTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_final",
    attention={"joint": "transformer_blocks.{}.attn1"},
    residual={"joint": "transformer_blocks.{}.norm2"},
    mlp={"joint": "transformer_blocks.{}.ff"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "timestep_cond", "ofs"),
    guidance="batched:uncond,cond",
    latent="BTCHW",
    time="time_embedding",
)
# ConsisID (arXiv 2411.17440) adds what it knows of a face between the blocks; its exit sees the text too.
CONSISID = replace(
    COGVIDEOX,
    name="consisid",
    transformer="ConsisIDTransformer3DModel",
    exit="",
    rows=("hidden_states", "encoder_hidden_states", "timestep", "timestep_cond", "id_cond", "id_vit_hidden"),
)
