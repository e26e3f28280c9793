"""Wan and what was built on it."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    LucyEditPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanAnimatePipeline,
    WanAnimateTransformer3DModel,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
    WanVideoToVideoPipeline,
)

from tests.families.parts import CHANNELS, Family, Vae, Vision, embeddings, picture, to_pil
from tests.zoo import TEXT_WIDTH, quiet, randomize

IMAGE_WIDTH = 10


def transformer(cls: Any = WanTransformer3DModel, **config: Any) -> Any:
    options = {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "text_dim": TEXT_WIDTH,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 3,
        "cross_attn_norm": True,
        "rope_max_seq_len": 32,
    }
    return randomize(cls(**options | config))


def flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def unipc() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )


def text(batch: int, is_guided: bool) -> dict[str, Any]:
    return {"guidance_scale": 4.0 if is_guided else 1.0, **embeddings(batch, "prompt_embeds")}


def text_first(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "prompt": None}


def with_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "image": picture()}


def with_video(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "video": [picture().movedim(1, -1)[0].numpy()] * 9}


IMAGE = {"in_channels": 2 * CHANNELS + 4, "image_dim": IMAGE_WIDTH, "added_kv_proj_dim": 24}


def wan_i2v() -> Any:
    vision = Vision(IMAGE_WIDTH)
    return WanImageToVideoPipeline(None, None, Vae(), flow(), vision, vision, transformer(**IMAGE))


def wan_v2v() -> Any:
    return WanVideoToVideoPipeline(None, None, transformer(), Vae(), unipc())


def wan_tokens() -> Any:
    """Wan 2.2 5B: a timestep for each token."""
    return WanPipeline(None, None, None, unipc(), transformer(), expand_timesteps=True)


def vace() -> Any:
    model = transformer(WanVACETransformer3DModel, vace_layers=[0, 2], vace_in_channels=2 * CHANNELS + 64)
    return WanVACEPipeline(None, None, Vae(), flow(), model)


def chronoedit() -> Any:
    model = transformer(ChronoEditTransformer3DModel, **IMAGE)
    vision = Vision(IMAGE_WIDTH)
    return ChronoEditPipeline(None, None, vision, vision, model, Vae(), flow())


def lucy() -> Any:
    return LucyEditPipeline(None, None, Vae(), flow(), transformer(in_channels=2 * CHANNELS))


def skyreels() -> Any:
    return SkyReelsV2Pipeline(None, None, transformer(SkyReelsV2Transformer3DModel), Vae(), unipc())


def skyreels_i2v() -> Any:
    model = transformer(SkyReelsV2Transformer3DModel, **IMAGE)
    vision = Vision(IMAGE_WIDTH)
    return SkyReelsV2ImageToVideoPipeline(None, None, vision, vision, model, Vae(), unipc())


def skyreels_forcing() -> Any:
    model = transformer(SkyReelsV2Transformer3DModel)
    return SkyReelsV2DiffusionForcingPipeline(None, None, model, Vae(), unipc())


def animate() -> Any:
    model = transformer(
        WanAnimateTransformer3DModel,
        **IMAGE | {"num_layers": 4},
        latent_channels=CHANNELS,
        motion_encoder_channel_sizes={"16": 4, "8": 4, "4": 4},
        motion_encoder_size=16,
        motion_style_dim=4,
        motion_dim=3,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=16,
        inject_face_latents_blocks=2,
    )
    vision = Vision(IMAGE_WIDTH)
    return WanAnimatePipeline(None, None, Vae(), unipc(), vision, vision, model)


def driven(batch: int, is_guided: bool) -> dict[str, Any]:
    frame, face = to_pil(picture()[0]), to_pil(picture()[0, :, :16, :16])
    videos = {"image": frame, "pose_video": [frame] * 9, "face_video": [face] * 9}
    return {**text(batch, is_guided), **videos, "segment_frame_length": 9}


def helios() -> Any:
    model = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        rope_dim=(4, 4, 4),
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
    )
    return HeliosPipeline(None, None, Vae(), HeliosScheduler(stages=1, stage_range=[0, 1]), randomize(model))


def one_section(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "num_latent_frames_per_chunk": 3, "history_sizes": [4, 2, 1]}


def alone_if_unguided(batch: int, is_guided: bool) -> dict[str, Any]:
    """The pipeline puts a negative prompt into the batch whether there is guidance or not."""
    given = text(batch, is_guided)
    return {name: value for name, value in given.items() if is_guided or "negative" not in name}


def anyflow() -> Any:
    options = {"num_attention_heads": 2, "attention_head_dim": 12, "freq_dim": 16, "ffn_dim": 32}
    model = AnyFlowTransformer3DModel(
        **options, in_channels=CHANNELS, out_channels=CHANNELS, text_dim=TEXT_WIDTH, num_layers=3
    )
    return AnyFlowPipeline(None, None, randomize(model), Vae(), FlowMapEulerDiscreteScheduler())


FAMILIES = (
    Family("wan-i2v", lambda: quiet(wan_i2v()), with_image),
    Family("wan-v2v", lambda: quiet(wan_v2v()), with_video, {"height": 64, "width": 64}, max_batch=1),
    Family("wan-tokens", lambda: quiet(wan_tokens()), text),
    Family("wan-vace", lambda: quiet(vace()), text, max_batch=1),
    Family("chronoedit", lambda: quiet(chronoedit()), with_image),
    Family("lucy", lambda: quiet(lucy()), with_video, max_batch=1),
    Family("skyreels-v2", lambda: quiet(skyreels()), text),
    Family("skyreels-v2-i2v", lambda: quiet(skyreels_i2v()), with_image),
    Family("skyreels-v2-forcing", lambda: quiet(skyreels_forcing()), text_first),
    Family("wan-animate", lambda: quiet(animate()), driven, {"height": 64, "width": 64}),
    Family("helios", lambda: quiet(helios()), one_section),
    Family("anyflow", lambda: quiet(anyflow()), alone_if_unguided),
)
