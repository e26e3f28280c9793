"""`Hold`: the newest computed delta, unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.how.history import Entry, Moment


@dataclass(frozen=True)
class Hold:
    """Reuse the newest computed delta; exact where features stand still."""

    num_entries = 1
    num_needed = 1
    learns = False
    needs_time = False
    signals = ()

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Store the delta itself."""
        del history, now
        return (delta,)

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """The newest entry."""
        del now
        return history[-1].values[0]
