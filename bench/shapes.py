"""Random-weight pipelines of real classes, wide enough that the transformer dominates (>= 200 ms an
evaluation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
)

from keystep.models.opensora.pipeline import OpenSoraPipeline
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.transformer import OpenSoraPlanTransformer3DModel
from keystep.models.vchitect.pipeline import VchitectPipeline
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

TEXT = 64
TEXT_WIDTH = 256


@dataclass(frozen=True)
class Shape:
    """A pipeline and the arguments of a call: latents and prompt embeddings of fixed seed, no decoder."""

    name: str
    build: Callable[[], Any]
    size: dict[str, int]
    latent: tuple[int, ...]
    text_width: int = TEXT_WIDTH
    has_negative: bool = True
    pooled_width: int = 0  # of a pooled embedding of the prompt, where the pipeline takes one

    def arguments(self, steps: int, seed: int = 0) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        names = ("prompt", "negative_prompt") if self.has_negative else ("prompt",)
        texts = {
            f"{name}_embeds": torch.randn(1, TEXT, self.text_width, generator=generator) for name in names
        }
        pooled = {
            f"{name}_embeds".replace("prompt", "pooled_prompt"): torch.randn(
                1, self.pooled_width, generator=generator
            )
            for name in names
            if self.pooled_width
        }
        return {
            **dict.fromkeys(names),
            **texts,
            **pooled,
            "latents": torch.randn(1, *self.latent, generator=generator),
            "num_inference_steps": steps,
            "guidance_scale": 6.0,
            "output_type": "latent",
            **self.size,
        }


def cogvideox() -> CogVideoXPipeline:
    """Width 256, 4 layers, 64 + 3 * 16 * 16 tokens."""
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=64,
        in_channels=16,
        out_channels=16,
        num_layers=4,
        text_embed_dim=TEXT_WIDTH,
        max_text_seq_length=TEXT,
        sample_width=32,
        sample_height=32,
        sample_frames=9,
    )
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    return CogVideoXPipeline(None, None, None, transformer.eval(), scheduler)


def latte_transformer(cls: Any, **sizes: int) -> Any:
    """A transformer of Latte's kind, random weights."""
    torch.manual_seed(0)
    return cls(
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        **sizes,
    ).eval()


def linear_ddim() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="linear", beta_end=0.02, clip_sample=False)


def latte() -> LattePipeline:
    """Width 256, 3 + 3 layers, 4 frames of 16 * 16 tokens."""
    transformer = latte_transformer(
        LatteTransformer3DModel,
        num_attention_heads=4,
        attention_head_dim=64,
        num_layers=3,
        cross_attention_dim=256,
        sample_size=32,
        caption_channels=TEXT_WIDTH,
        video_length=4,
    )
    return LattePipeline(None, None, None, transformer, linear_ddim())


def opensora() -> OpenSoraPipeline:
    """STDiT3-XL/2 at full size: 1.2 billion values, width 1152, 28 + 28 blocks; 5 frames of 16 tokens."""
    torch.manual_seed(0)
    vae = AutoencoderKLOpenSora(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        temporal_widths=(8, 8, 8, 8),
        temporal_layers_per_block=1,
        temporal_norm_num_groups=4,
    )
    return OpenSoraPipeline(None, None, STDiT3().eval(), vae.eval(), RectifiedFlowScheduler())  # type: ignore[arg-type]


def opensora_plan() -> OpenSoraPlanPipeline:
    """The released width 1152, 2 + 2 of its 28 + 28 blocks; 5 frames of 64 tokens."""
    transformer = latte_transformer(
        OpenSoraPlanTransformer3DModel,
        num_attention_heads=16,
        attention_head_dim=72,
        num_layers=2,
        cross_attention_dim=1152,
        sample_size=64,
        caption_channels=4096,
        video_length=5,
    )
    return OpenSoraPlanPipeline(None, None, None, transformer, linear_ddim())


def vchitect() -> VchitectPipeline:
    """Width 1536 as the released one is believed to have, 2 of its 24 layers; 3 frames of 64 tokens."""
    torch.manual_seed(0)
    transformer = VchitectTransformer3DModel(num_layers=2)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return VchitectPipeline(transformer.eval(), scheduler, *[None] * 7)  # type: ignore[arg-type]


SHAPES = (
    Shape("cogvideox", cogvideox, {"num_frames": 9, "height": 256, "width": 256}, (3, 16, 32, 32)),
    Shape("latte", latte, {"video_length": 4, "height": 256, "width": 256}, (4, 4, 32, 32)),
    Shape(
        "opensora",
        opensora,
        {"num_frames": 17, "height": 64, "width": 64},
        (4, 5, 8, 8),
        text_width=4096,
        has_negative=False,
    ),
    Shape(
        "opensora-plan",
        opensora_plan,
        {"num_frames": 17, "height": 128, "width": 128},
        (4, 5, 16, 16),
        text_width=4096,
    ),
    Shape(
        "vchitect",
        vchitect,
        {"num_frames": 3, "height": 128, "width": 128},
        (3, 16, 16, 16),
        text_width=4096,
        pooled_width=2048,
    ),
)
