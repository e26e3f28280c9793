"""EasyAnimate 5 and 5.1 (arXiv 2405.18991): joint attention over text and video, guidance in one batch.

Its MLPs are no site: in blocks behind the first `mmdit_layers` one module serves the video and then the text.
"""

from keystep.models.spec import ModelSpec

EASYANIMATE = ModelSpec(
    name="easyanimate",
    transformer="EasyAnimateTransformer3DModel",
    blocks=("transformer_blocks",),
    streams=("hidden_states", "encoder_hidden_states"),
    exit="norm_final",
    attention={"joint": "transformer_blocks.{}.attn1"},
    residual={"joint": "transformer_blocks.{}.norm2"},
    rows=(
        "hidden_states",
        "timestep",
        "timestep_cond",
        "encoder_hidden_states",
        "encoder_hidden_states_t5",
        "inpaint_latents",
        "control_latents",
    ),
    guidance="batched:uncond,cond",
    time="time_embedding",
)
