"""HunyuanVideo 1 and 1.5, and Motif-Video."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HunyuanSkyreelsImageToVideoPipeline,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance
from torch import nn

from tests.families.parts import (
    CHANNELS,
    SIZE,
    Family,
    Vae,
    Vision,
    embeddings,
    masks,
    picture,
    to_pil,
)
from tests.zoo import TEXT_WIDTH, quiet, randomize

GUIDER = ClassifierFreeGuidance(guidance_scale=4.0)  # each call brings its own
HEADS = {"num_attention_heads": 2, "attention_head_dim": 12, "rope_axes_dim": (4, 4, 4)}


def flow() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def transformer(**config: Any) -> Any:
    options = HEADS | {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_WIDTH,
        "pooled_projection_dim": TEXT_WIDTH,
    }
    return randomize(HunyuanVideoTransformer3DModel(**options | config))


def text(batch: int, is_guided: bool) -> dict[str, Any]:
    """Embedded guidance throughout; the real one on top of it where asked for."""
    pooled = {name: value[:, 0] for name, value in embeddings(batch, "pooled_prompt_embeds", seed=1).items()}
    return {
        **embeddings(batch, "prompt_embeds"),
        **masks(batch, "prompt_attention_mask"),
        **pooled,
        "true_cfg_scale": 4.0 if is_guided else 1.0,
        "guidance_scale": 6.0,
    }


def with_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "image": picture(batch)}


def t2v() -> Any:
    return HunyuanVideoPipeline(None, None, transformer(), None, flow(), None, None)


def i2v_concat() -> Any:
    model = transformer(in_channels=2 * CHANNELS + 1, image_condition_type="latent_concat")
    return HunyuanVideoImageToVideoPipeline(None, None, model, Vae(), flow(), None, None, None)


def i2v_replace() -> Any:
    model = transformer(image_condition_type="token_replace", guidance_embeds=True)
    return HunyuanVideoImageToVideoPipeline(None, None, model, Vae(), flow(), None, None, None)


def skyreels() -> Any:
    model = transformer(in_channels=2 * CHANNELS, guidance_embeds=True)
    return HunyuanSkyreelsImageToVideoPipeline(None, None, model, Vae(), flow(), None, None)


def framepack() -> Any:
    model = HunyuanVideoFramepackTransformer3DModel(
        **HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        has_image_proj=True,
        image_proj_dim=TEXT_WIDTH,
        has_clean_x_embedder=True,
    )
    vision = Vision(TEXT_WIDTH)
    parts = None, None, randomize(model), Vae(), flow(), None, None, vision, vision
    return HunyuanVideoFramepackPipeline(*parts)


def one_section(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "image": picture(), "latent_window_size": 3}


class Guided15(HunyuanVideo15Pipeline):
    """Sets its guider by an argument, for want of one in the call."""

    def __call__(self, *args: Any, guidance: float, **kwargs: Any) -> Any:
        """The pipeline's call."""
        self.guider = ClassifierFreeGuidance(guidance_scale=guidance)
        return super().__call__(*args, **kwargs)


def model_15() -> Any:
    model = HunyuanVideo15Transformer3DModel(
        **HEADS,
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_layers=3,
        num_refiner_layers=1,
        text_embed_dim=TEXT_WIDTH,
        text_embed_2_dim=TEXT_WIDTH,
        image_embed_dim=TEXT_WIDTH,
        target_size=64,
    )
    return randomize(model)


def t2v_15() -> Any:
    pipe = Guided15(None, None, model_15(), Vae(), flow(), None, None, GUIDER)
    pipe.vision_num_semantic_tokens = 3  # of 729
    return pipe


class Guided15Image(HunyuanVideo15ImageToVideoPipeline):
    """Likewise."""

    def __call__(self, *args: Any, guidance: float, **kwargs: Any) -> Any:
        """The pipeline's call."""
        self.guider = ClassifierFreeGuidance(guidance_scale=guidance)
        return super().__call__(*args, **kwargs)


class Siglip(Vision):
    """Is asked for the type of its weights, and preprocesses under another name."""

    def __init__(self) -> None:
        super().__init__(TEXT_WIDTH)
        self.weight = nn.Parameter(torch.zeros(1))

    def preprocess(self, images: Any, **options: Any) -> Any:
        """Pixel values of an image."""
        del options
        return self(images)


def i2v_15() -> Any:
    return Guided15Image(None, None, model_15(), Vae(), flow(), None, None, GUIDER, Siglip(), Siglip())


def image_15(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text_15(batch, is_guided), "image": to_pil(picture()[0])}


def text_15(batch: int, is_guided: bool) -> dict[str, Any]:
    return {
        **embeddings(batch, "prompt_embeds", "prompt_embeds_2"),
        **masks(batch, "prompt_embeds_mask", "prompt_embeds_mask_2"),
        "guidance": 4.0 if is_guided else 1.0,
    }


class GuidedMotif(MotifVideoPipeline):
    """Likewise."""

    def __call__(self, *args: Any, guidance: float, **kwargs: Any) -> Any:
        """The pipeline's call."""
        self.guider = ClassifierFreeGuidance(guidance_scale=guidance)
        return super().__call__(*args, **kwargs)


def motif() -> Any:
    model = MotifVideoTransformer3DModel(
        **HEADS,
        in_channels=2 * CHANNELS + 1,
        out_channels=CHANNELS,
        num_layers=2,
        num_single_layers=3,
        num_decoder_layers=1,
        text_embed_dim=TEXT_WIDTH,
    )
    return GuidedMotif(flow(), Vae(), None, None, randomize(model), GUIDER)


def text_motif(batch: int, is_guided: bool) -> dict[str, Any]:
    return {
        **embeddings(batch, "prompt_embeds"),
        **masks(batch, "prompt_attention_mask"),
        "guidance": 4.0 if is_guided else 1.0,
    }


FAMILIES = (
    Family("hunyuan", lambda: quiet(t2v()), text),
    Family("hunyuan-i2v-concat", lambda: quiet(i2v_concat()), with_image),
    Family("hunyuan-i2v-replace", lambda: quiet(i2v_replace()), with_image),
    Family("hunyuan-skyreels", lambda: quiet(skyreels()), with_image),
    Family("framepack", lambda: quiet(framepack()), one_section, max_batch=1, has_motion=False),
    Family("hunyuan-1.5", lambda: quiet(t2v_15()), text_15, SIZE),
    Family("hunyuan-1.5-i2v", lambda: quiet(i2v_15()), image_15, {"num_frames": 9}),
    Family("motif", lambda: quiet(motif()), text_motif),
)
