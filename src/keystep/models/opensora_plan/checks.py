"""Checks of the arguments of `OpenSoraPlanPipeline` that the model itself limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from keystep.errors import require
from keystep.models import inputs
from keystep.models.opensora_plan import sizes

MIN_PNDM_STEPS = 4  # its Runge-Kutta start takes the first four timesteps


def check_sampling(pipe: Any, num_inference_steps: int, guidance_scale: float, output_type: str) -> None:
    """ValueError unless the scheduler can make so many steps, and the parts for the output are there."""
    is_fit = hasattr(pipe.scheduler, "init_noise_sigma")
    require(is_fit, "scheduler", type(pipe.scheduler).__name__, "one for models that predict noise")
    inputs.check_count("num_inference_steps", num_inference_steps)
    if isinstance(pipe.scheduler, PNDMScheduler) and not pipe.scheduler.config["skip_prk_steps"]:
        is_enough = num_inference_steps >= MIN_PNDM_STEPS
        require(is_enough, "num_inference_steps", num_inference_steps, f"{MIN_PNDM_STEPS} or more with PNDM")
    inputs.check_guidance(guidance_scale)
    inputs.check_output_type(output_type)
    has_decoder = pipe.vae is not None or output_type == "latent"
    require(has_decoder, "output_type", output_type, "'latent', as the pipeline has no vae")


def check_text(
    pipe: Any,
    prompt: object,
    negative_prompt: object,
    prompt_embeds: torch.Tensor | None,
    negative_prompt_embeds: torch.Tensor | None,
    is_guided: bool,
) -> int:
    """The number of prompts.

    Raises:
        ValueError: no prompt or two, embeddings of another shape, or a text without an encoder for it.
    """
    pairs = (
        ("prompt", prompt, prompt_embeds),
        ("negative_prompt", negative_prompt, negative_prompt_embeds),
    )
    for name, text, embeds in pairs:
        require(text is None or embeds is None, name, text, f"None beside {name}_embeds")
        if embeds is not None:
            width = pipe.transformer.config["caption_channels"]
            inputs.check_embeds(f"{name}_embeds", embeds, ("prompts", "tokens", width))
    require(prompt is not None or prompt_embeds is not None, "prompt", prompt, "text, or prompt_embeds")
    needs_encoder = prompt_embeds is None or (is_guided and negative_prompt_embeds is None)
    has_encoder = pipe.text_encoder is not None and pipe.tokenizer is not None
    allowed = "prompt_embeds and negative_prompt_embeds, as the pipeline has no text encoder"
    require(has_encoder or not needs_encoder, "prompt, negative_prompt", (prompt, negative_prompt), allowed)
    if prompt_embeds is None:
        num_prompts = len(inputs.checked_prompts("prompt", prompt))
    else:
        num_prompts = len(prompt_embeds)
    if negative_prompt is not None:
        inputs.checked_prompts("negative_prompt", negative_prompt, num_prompts)
    if negative_prompt_embeds is not None:
        check_negative_embeds(negative_prompt_embeds, prompt_embeds)
    return num_prompts


def check_negative_embeds(negative: torch.Tensor, positive: torch.Tensor | None) -> None:
    """ValueError unless both are given, in one shape."""
    given = tuple(negative.shape)
    require(positive is not None, "negative_prompt_embeds", given, "None without prompt_embeds")
    assert positive is not None, "checked"
    shape = tuple(positive.shape)
    require(given == shape, "negative_prompt_embeds", given, f"{shape}, as prompt_embeds")


def latent_size(
    config: Mapping[str, Any], num_frames: int | None, height: int | None, width: int | None
) -> tuple[int, int, int, int]:
    """Channels, frames, rows and columns of the latents of one video; None = what the transformer is for.

    Raises:
        ValueError: another number of frames than the transformer's positions are for, or pixels that make no
            whole patches; names the nearest.
    """
    only = sizes.video_frames(config["video_length"])
    if num_frames is not None:
        released = ", ".join(f"{size!r} has {frames}" for size, frames in sizes.FRAMES_OF_SIZE.items())
        require(num_frames == only, "num_frames", num_frames, f"{only} for this checkpoint ({released})")
    trained = config["sample_size"] * sizes.SPATIAL_FACTOR
    pixels = trained if height is None else height, trained if width is None else width
    sizes.check_pixels(*pixels, config["patch_size"] * sizes.SPATIAL_FACTOR)
    rows, columns = (extent // sizes.SPATIAL_FACTOR for extent in pixels)
    return config["in_channels"], config["video_length"], rows, columns
