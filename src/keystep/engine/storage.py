"""Where histories live: on the model's device as they are, or in host memory, or in a smaller type."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from keystep.errors import require
from keystep.how import Entry


@dataclass(frozen=True)
class Storage:
    """How cached tensors are kept between evaluations: those that values are predicted from.

    What is only compared with stays as it is: its rounding would be measured as a change.

    Attributes:
        device: None = where they were computed; "cpu" = in host memory (pinned, copied without stopping the
            device): frees device memory at the price of a copy each way.
        dtype: None = as computed; e.g. torch.bfloat16 halves float32 histories.
    """

    device: str | None = None
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        require(
            self.device in (None, "cpu"),
            "storage.device",
            self.device,
            "None (where it was computed) or 'cpu'",
        )
        is_float = self.dtype is None or self.dtype.is_floating_point
        require(is_float, "storage.dtype", self.dtype, "None or a floating-point dtype")

    def store(self, values: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """The tensors as they are kept; untouched where nothing is to be changed."""
        return tuple(
            value.to(self.device or value.device, self.dtype, non_blocking=value.is_cuda) for value in values
        )

    def load(self, entry: Entry) -> Entry:
        """The entry as it was computed."""
        values = tuple(
            value.to(entry.device, dtype, non_blocking=True)
            for value, dtype in zip(entry.values, entry.dtypes, strict=True)
        )
        return Entry(entry.moment, values, entry.device, entry.dtypes)
