"""Checks what a user passes to a native pipeline: messages name the argument, its value, what is allowed."""

import warnings
from collections.abc import Sequence

import torch

from keystep.errors import require

OUTPUT_TYPES = ("np", "pt", "pil", "latent")


def checked_prompts(name: str, value: object, num_prompts: int | None = None) -> list[str]:
    """A prompt argument as a list of texts.

    Args:
        name: of the argument, for the message.
        value: what the user passed.
        num_prompts: the length it must have; one text is repeated. None: any length from 1.

    Raises:
        ValueError: not text, no text, or too few.
    """
    if isinstance(value, str):
        return [value] * (num_prompts or 1)
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{name} is {value!r}; allowed: a str or a list of str")
    if not value:
        raise ValueError(f"{name} is an empty list; allowed: one prompt or more")
    if num_prompts is not None and len(value) != num_prompts:
        raise ValueError(
            f"{name} has {len(value)} entries; allowed: one str, or a list of {num_prompts}, one a prompt"
        )
    return list(value)


def check_embeds(name: str, value: object, axes: Sequence[str | int]) -> None:
    """Raise ValueError unless `value` is a tensor with these axes; a word stands for any size from 1."""
    allowed = f"a tensor ({', '.join(map(str, axes))})"
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: given {type(value).__name__!r}, allowed: {allowed}")
    sizes = tuple(value.shape)
    fits = len(sizes) == len(axes) and all(
        size > 0 and axis in (size, str(axis)) for size, axis in zip(sizes, axes, strict=True)
    )
    require(fits, name, sizes, allowed)


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a whole number from 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; allowed: a whole number >= 1")


def check_sampling(
    num_inference_steps: object, num_videos_per_prompt: object, guidance_scale: object, output_type: object
) -> None:
    """Raise ValueError unless all of them are what every pipeline takes."""
    check_count("num_inference_steps", num_inference_steps)
    check_count("num_videos_per_prompt", num_videos_per_prompt)
    check_guidance(guidance_scale)
    check_output_type(output_type)


def check_guidance(value: object) -> None:
    """Raise ValueError unless `value` is a number from 0."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value >= 0:
        raise ValueError(f"guidance_scale is {value!r}; allowed: a number >= 0; above 1 switches guidance on")


def warn_unless_guided(negative_prompt: object, guidance_scale: float) -> None:
    """Warn about a negative prompt where guidance is off, so that it has no effect."""
    if negative_prompt and not guidance_scale > 1:
        warnings.warn(
            f"negative_prompt: has no effect with guidance_scale {guidance_scale}; above 1 it has",
            stacklevel=4,
        )


def check_output_type(value: object) -> None:
    """Raise ValueError unless `value` is one of `OUTPUT_TYPES`."""
    if value not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {value!r}; allowed: {', '.join(map(repr, OUTPUT_TYPES))}")


def check_latents(latents: object, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `latents` is None or a tensor of this shape."""
    if latents is None:
        return
    if not isinstance(latents, torch.Tensor):
        raise ValueError(f"latents is a {type(latents).__name__}; allowed: None or a tensor of shape {shape}")
    if latents.shape != shape:
        raise ValueError(f"latents has shape {tuple(latents.shape)}; allowed: {shape}")


def check_generator(generator: object, num_videos: int) -> None:
    """Raise ValueError unless `generator` is None, one generator, or one for each video."""
    if generator is None or isinstance(generator, torch.Generator):
        return
    if not isinstance(generator, list) or not all(isinstance(entry, torch.Generator) for entry in generator):
        raise ValueError(f"generator is {generator!r}; allowed: None, a torch.Generator, or a list of them")
    if len(generator) != num_videos:
        raise ValueError(
            f"generator has {len(generator)} entries; allowed: one generator, or a list of {num_videos}"
        )


def check_callback_inputs(names: Sequence[str], allowed: Sequence[str]) -> None:
    """Raise ValueError unless every name is allowed."""
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise ValueError(f"callback_on_step_end_tensor_inputs names {unknown}; allowed: {list(allowed)}")
