"""Model outputs: diffusers transformers return a tensor, a tuple or a `ModelOutput`, the video's first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def samples_of(output: Any, num_samples: int = 1) -> tuple[torch.Tensor, ...]:
    """The samples in a model's output: the video's, then others such as the audio's.

    Raises:
        TypeError: if there are not as many, or something else than tensors.
    """
    if isinstance(output, torch.Tensor):
        values: tuple[Any, ...] = (output,)
    else:
        values = output if isinstance(output, tuple) else tuple(getattr(output, "values", tuple)())
    if len(values) != num_samples or not all(isinstance(value, torch.Tensor) for value in values):
        raise TypeError(
            f"model output: given {type(output).__name__} of {len(values)} values, allowed: {num_samples} "
            "tensor(s), see ModelSpec.outputs"
        )
    return values


def with_samples(output: Any, samples: Sequence[torch.Tensor]) -> Any:
    """An output of the same type with other samples."""
    if isinstance(output, torch.Tensor):
        return samples[0]
    return tuple(samples) if isinstance(output, tuple) else type(output)(*samples)
