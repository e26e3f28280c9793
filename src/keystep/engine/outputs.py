"""Model outputs: diffusers transformers return a tuple or a `ModelOutput`, with the sample first."""

from __future__ import annotations

from typing import Any

import torch


def sample_of(output: Any) -> torch.Tensor:
    """The sample in a model's output.

    Raises:
        TypeError: if the output has more than the sample, or no tensor at all.
    """
    if isinstance(output, torch.Tensor):
        return output
    values = output if isinstance(output, tuple) else tuple(getattr(output, "values", tuple)())
    if len(values) != 1 or not isinstance(values[0], torch.Tensor):
        raise TypeError(
            f"model output: given {type(output).__name__} of {len(values)} values, allowed: one tensor"
        )
    return values[0]


def with_sample(output: Any, sample: torch.Tensor) -> Any:
    """An output of the same type with another sample."""
    if isinstance(output, torch.Tensor):
        return sample
    return (sample,) if isinstance(output, tuple) else type(output)(sample)
