"""Random-weight pipelines of real classes: wide ones, as wide as the released model, so that its matrices
dominate as they do there, but few tokens and layers; and narrow ones, whose own cost is next to nothing, so
that what a method adds stands out.

Real videos have a hundred times the tokens of the wide ones: what is computed once an evaluation however many
there are (timestep embedding, the modulation of each block) weighs more here than there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.pipelines.latte.pipeline_latte import LattePipeline
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

from keystep.lab.contestant import ROBUSTNESS, SPEED, Subject

WIDE, NARROW = "wide", "narrow"
PARTS = {WIDE: (SPEED,), NARROW: (SPEED, ROBUSTNESS)}
SIDE = {WIDE: 96, NARROW: 64}  # pixels; an eighth in latents, a sixteenth in tokens
TEXT_LENGTH = {WIDE: 16, NARROW: 64}
TEXT_WIDTH = 256
NUM_LAYERS = 10  # cache-dit's default computes the first eight
LATENT_PIXELS = 8
NUM_STEPS = {WIDE: 12, NARROW: 16}


Parts = tuple[Any, Any]  # transformer, scheduler


@dataclass(frozen=True)
class Heads:
    """Size of a transformer: it is `number * dim` wide."""

    number: int
    dim: int

    @property
    def width(self) -> int:
        """Values of a token."""
        return self.number * self.dim


FEW = Heads(2, 16)  # of narrow models
COGVIDEOX = {WIDE: Heads(30, 64), NARROW: FEW}  # THUDM/CogVideoX-2b
LATTE = {WIDE: Heads(16, 72), NARROW: FEW}  # maxin-cn/Latte-1
WAN = {WIDE: Heads(12, 128), NARROW: FEW}  # Wan-AI/Wan2.1-T2V-1.3B-Diffusers
WAN_INNER = {WIDE: 8960, NARROW: 4 * FEW.width}  # width of its feed-forward


@dataclass(frozen=True)
class Shape:
    """A pipeline of one class at both widths.

    Attributes:
        pipeline: its class.
        build: width -> transformer and scheduler.
        channels, latent_frames: of the latents.
        frames: what its call takes for the number of frames.
        is_frames_first: whether latents are (B, F, C, H, W) instead of (B, C, F, H, W).
        nothing: arguments that must be None where embeddings are given.
    """

    pipeline: Any
    build: Callable[[str], Parts]
    channels: int
    latent_frames: int
    frames: dict[str, int]
    is_frames_first: bool = False
    nothing: tuple[str, ...] = ("prompt", "negative_prompt")

    def call(
        self, width: str, device: str, dtype: torch.dtype, prompt: str, seed: int, num_steps: int
    ) -> dict[str, Any]:
        """Latents and embeddings of a prompt and seed, no decoder."""
        texts = torch.Generator().manual_seed(sum(prompt.encode()))
        noise = torch.Generator().manual_seed(seed)
        side = SIDE[width] // LATENT_PIXELS
        sizes = (self.channels, self.latent_frames)
        shape = (*(reversed(sizes) if self.is_frames_first else sizes), side, side)
        tensors = {
            "prompt_embeds": torch.randn(1, TEXT_LENGTH[width], TEXT_WIDTH, generator=texts),
            "negative_prompt_embeds": torch.randn(1, TEXT_LENGTH[width], TEXT_WIDTH, generator=texts),
            "latents": torch.randn(1, *shape, generator=noise),
        }
        return {
            **dict.fromkeys(self.nothing),
            **{name: tensor.to(device, dtype) for name, tensor in tensors.items()},
            "num_inference_steps": num_steps,
            "guidance_scale": 4.0,
            "generator": noise,
            "output_type": "latent",
            "height": SIDE[width],
            "width": SIDE[width],
            **self.frames,
        }


def cogvideox(width: str) -> Parts:
    """CogVideoX: text and video attend to each other in one stream."""
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=COGVIDEOX[width].number,
        attention_head_dim=COGVIDEOX[width].dim,
        in_channels=16,
        out_channels=16,
        num_layers=NUM_LAYERS,
        text_embed_dim=TEXT_WIDTH,
        max_text_seq_length=TEXT_LENGTH[width],
        sample_width=SIDE[width] // LATENT_PIXELS,
        sample_height=SIDE[width] // LATENT_PIXELS,
        sample_frames=9,
    )
    return transformer, CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False)


def latte(width: str) -> Parts:
    """Latte: spatial and temporal blocks in turn."""
    transformer = LatteTransformer3DModel(
        num_attention_heads=LATTE[width].number,
        attention_head_dim=LATTE[width].dim,
        in_channels=4,
        out_channels=8,
        num_layers=NUM_LAYERS // 2,
        cross_attention_dim=LATTE[width].width,
        attention_bias=True,
        sample_size=SIDE[width] // LATENT_PIXELS,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_WIDTH,
        video_length=4,
    )
    return transformer, DDIMScheduler(beta_schedule="linear", beta_end=0.02, clip_sample=False)


def wan(width: str) -> Parts:
    """Wan: text by cross-attention, one call a guidance branch."""
    transformer = WanTransformer3DModel(
        num_attention_heads=WAN[width].number,
        attention_head_dim=WAN[width].dim,
        in_channels=16,
        out_channels=16,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=WAN_INNER[width],
        num_layers=NUM_LAYERS,
        cross_attn_norm=True,
    )
    return transformer, FlowMatchEulerDiscreteScheduler(shift=3.0)


SHAPES: dict[str, Shape] = {
    "cogvideox": Shape(CogVideoXPipeline, cogvideox, 16, 3, {"num_frames": 9}, is_frames_first=True),
    "latte": Shape(LattePipeline, latte, 4, 4, {"video_length": 4}),
    "wan": Shape(WanPipeline, wan, 16, 3, {"num_frames": 9}, nothing=()),
}


def random_subjects(device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, Subject]:
    """Every shape at both widths, by `class-width`.

    Args:
        device: where they run.
        dtype: of weights, latents and embeddings.
    """
    return {
        f"{name}-{width}": Subject(
            name=f"{name}-{width}",
            load=partial(_load, shape, width, device, dtype),
            call=partial(shape.call, width, device, dtype),
            prompts=("a", "b"),
            development_prompts=("c",),
            num_steps=NUM_STEPS[width],
            parts=PARTS[width],
        )
        for name, shape in SHAPES.items()
        for width in (WIDE, NARROW)
    }


def _load(shape: Shape, width: str, device: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    transformer, scheduler = shape.build(width)
    torch.nn.Module.to(transformer, device, dtype)  # diffusers' own `to` warns of parts that like float32
    pipe = shape.pipeline(None, None, None, transformer=transformer.eval(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe
