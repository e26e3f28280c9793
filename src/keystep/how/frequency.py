"""`FrequencyBands`: CFG-Cache, which rebuilds the unconditional output from its difference to the conditional
one.

FasterCache (arXiv 2410.19355, section 3.3) keeps the low- and high-frequency parts of the difference between
the two guidance branches and adds them, weighted, to the spectrum of the current conditional output. The
transform is linear, so with D = u - c split once at each full evaluation

    u = c + a_low * D_low + a_high * D_high

holds exactly, in real space, without any transform on skipped evaluations. Differs from the reference code
in: the weights are a function of the number of skipped evaluations since the refresh; stored tensors are
never multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from keystep.errors import require
from keystep.how.history import Entry, Moment


@dataclass(frozen=True)
class Gain:
    """Weight of one frequency band on skipped evaluations.

    Attributes:
        rate: factor per skipped evaluation (`accumulates`) or in all (not `accumulates`); 1 = no enhancement.
        start, stop: evaluations (1-based, inclusive) in which the factor applies.
        accumulates: the reference code compounds the factor over consecutive skips; the paper's text does
            not.
        cap: upper bound of the weight.
    """

    rate: float = 1.0
    start: float = 1
    stop: float = float("inf")
    accumulates: bool = True
    cap: float = float("inf")

    def __post_init__(self) -> None:
        require(self.rate > 0, "Gain.rate", self.rate, "a factor > 0")

    def at(self, refreshed: int, evaluation: int) -> float:
        """The weight at `evaluation` when the difference was computed at evaluation `refreshed`."""
        active = [k for k in range(refreshed + 1, evaluation + 1) if self.start <= k <= self.stop]
        if self.accumulates:
            return min(self.cap, self.rate ** len(active))
        return min(self.cap, self.rate) if evaluation in active else 1.0


@lru_cache(maxsize=8)
def low_pass_mask(height: int, width: int, radius: int, device: torch.device) -> torch.Tensor:
    """Disc of the lowest frequencies for `rfft2`, (height, width // 2 + 1), 0 or 1 in float32.

    Built from integer frequency indices: with float frequencies the bins on the rim flip.
    """
    rows = (torch.arange(height) + height // 2) % height - height // 2
    columns = torch.arange(width // 2 + 1)
    return (rows[:, None] ** 2 + columns[None, :] ** 2 <= radius**2).float().to(device)


@dataclass(frozen=True)
class FrequencyBands:
    """Weighted low and high frequencies of the newest difference between the branches.

    Needs outputs whose last two dimensions are latent height and width.

    Attributes:
        low, high: gains of the two bands.
        radius: of the low band, as a fraction of min(height, width), rounded down (0 = only the mean).
    """

    low: Gain = Gain()
    high: Gain = Gain()
    radius: float = 0.2
    num_entries = 1
    num_needed = 1
    learns = False
    needs_time = False
    signals = ()

    def __post_init__(self) -> None:
        require(
            0 <= self.radius <= 0.5, "FrequencyBands.radius", self.radius, "0 to 0.5 of min(height, width)"
        )

    def keep(
        self, delta: torch.Tensor, history: Sequence[Entry] = (), now: Moment | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Split (..., H, W) once into (low, high), both float32, low + high = delta."""
        del history, now
        delta = delta.float()
        height, width = delta.shape[-2:]
        # round before int: 0.2 * 5 must not become 0.9999 -> 0
        radius = int(round(self.radius * min(height, width), 6))
        mask = low_pass_mask(height, width, radius, delta.device)
        low = torch.fft.irfft2(torch.fft.rfft2(delta) * mask, s=(height, width))
        return low, delta - low

    def predict(self, history: Sequence[Entry], now: Moment) -> torch.Tensor:
        """a_low * D_low + a_high * D_high, float32."""
        entry = history[-1]
        low, high = entry.values
        refreshed = entry.moment.evaluation
        return (low * self.low.at(refreshed, now.evaluation)).add_(
            high, alpha=self.high.at(refreshed, now.evaluation)
        )
