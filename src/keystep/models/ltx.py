"""LTX-Video (arXiv 2501.00103) and LTX-2 (arXiv 2601.03233): latents are tokens, guidance in one batch.

LTX-2 makes the audio along with the video, and is called up to twice more in an evaluation: with attention
perturbed in some blocks, and with each modality on its own.
"""

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
    norms={"attn1": "norm1", "ff": "norm2"},
    rows=("hidden_states", "encoder_hidden_states", "timestep", "encoder_attention_mask", "video_coords"),
    guidance="batched:uncond,cond",
    latent=PACKED,
    time="time_embed.emb.timestep_embedder",
)
LTX2 = ModelSpec(
    name="ltx-2",
    transformer="LTX2VideoTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states", "audio_hidden_states"),
    exit="",
    # attention from one modality to the other is left out: not every call has it
    attention={
        "self": "transformer_blocks.{}.attn1",
        "audio-self": "transformer_blocks.{}.audio_attn1",
        "cross": "transformer_blocks.{}.attn2",
        "audio-cross": "transformer_blocks.{}.audio_attn2",
    },
    residual={"self": "transformer_blocks.{}.norm2", "audio": "transformer_blocks.{}.audio_norm2"},
    mlp={"self": "transformer_blocks.{}.ff", "audio": "transformer_blocks.{}.audio_ff"},
    norms={
        "attn1": "norm1",
        "attn2": "norm2",
        "ff": "norm3",
        "audio_attn1": "audio_norm1",
        "audio_attn2": "audio_norm2",
        "audio_ff": "audio_norm3",
    },
    rows=(
        "hidden_states",
        "audio_hidden_states",
        "encoder_hidden_states",
        "audio_encoder_hidden_states",
        "timestep",
        "audio_timestep",
        "sigma",
        "audio_sigma",
        "encoder_attention_mask",
        "audio_encoder_attention_mask",
        "video_coords",
        "audio_coords",
        "perturbation_mask",
        "video_self_attention_mask",
        "video_keyframes_mask",
    ),
    guidance="batched:uncond,cond",
    latent=PACKED,
    outputs=("hidden_states", "audio_hidden_states"),
    further_calls=2,
    time="time_embed.emb.timestep_embedder",
)
