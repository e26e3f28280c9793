"""Signals: numbers measured at a probe, kept as float32 (numerator, denominator) sums.

Sums, not means: ranks that hold parts of a tensor, and calls that hold one branch each, combine by addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from keystep.errors import require
from keystep.what.site import AttentionResidual, Probe

Sums = Sequence[tuple[float, float]]  # one (numerator, denominator) per sample and stride


def ratio(numerator: float, denominator: float) -> float:
    """numerator / denominator; 0 / 0 is 0 (nothing there, nothing changed), x / 0 infinite, nan stays nan."""
    if denominator == 0:
        return 0.0 if numerator == 0 else float("inf")
    return numerator / denominator


def absolute_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum of |x| per sample, (B,), accumulated in float32."""
    return x.flatten(1).abs().sum(1, dtype=torch.float32)


@dataclass(frozen=True)
class RelativeChange:
    """Relative L1 change of a probed value since it was last computed: |new - old|_1 / |old|_1.

    Attributes:
        probe: where it is measured.
        over: `"lead"`: only the conditional branch, the most restless sample of a batch counts, so a video is
            never skipped more because of its batch mates. `"all"`: one ratio of sums over all branches and
            samples, as the AdaCache reference code pools them.
    """

    probe: Probe = field(default_factory=AttentionResidual)
    over: Literal["lead", "all"] = "lead"
    name: ClassVar[str] = "distance"
    needs_previous: ClassVar[bool] = True

    def measure(self, value: torch.Tensor, previous: torch.Tensor | None, num_frames: int) -> torch.Tensor:
        """Sums per sample, (1, 2, B): `value` and `previous` are (B, frames * tokens, C)."""
        del num_frames
        assert previous is not None, "the engine measures only with a previous value"
        return torch.stack([absolute_sum(value - previous), absolute_sum(previous)])[None]

    def combine(self, sums: Sequence[Sums]) -> float:
        """One number from the (numerator, denominator) pairs of all samples."""
        (pairs,) = sums
        if self.over == "all":
            return ratio(sum(n for n, _ in pairs), sum(d for _, d in pairs))
        return max((ratio(n, d) for n, d in pairs), key=lambda x: (x != x, x))  # nan counts as the largest


@dataclass(frozen=True)
class MotionRatio:
    """How much a probed value differs from frame to frame: |F[j:] - F[:-j]|_1 / (|F[j:]|_1 + |F[:-j]|_1).

    The motion estimate of AdaCache's motion regularisation (arXiv 2411.02397, eq. 8), mean over the strides.
    0 = all frames alike; independent Gaussian frames give 0.707. nan where there are not more frames than the
    stride.

    Attributes:
        strides: distances j between the compared frames.
    """

    probe: Probe = field(default_factory=AttentionResidual)
    over: Literal["lead", "all"] = "lead"
    strides: tuple[int, ...] = (1,)
    name: ClassVar[str] = "motion"
    needs_previous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require(
            len(self.strides) > 0 and all(j >= 1 for j in self.strides),
            "MotionRatio.strides",
            self.strides,
            "one or more whole numbers of frames >= 1",
        )

    def measure(self, value: torch.Tensor, previous: torch.Tensor | None, num_frames: int) -> torch.Tensor:
        """Sums per stride and sample, (strides, 2, B); `value` is (B, frames * tokens, C), frame-major."""
        del previous
        frames = value.unflatten(1, (num_frames, -1))
        rows = []
        for stride in self.strides:
            later, earlier = frames[:, stride:], frames[:, : max(0, num_frames - stride)]
            rows.append(
                torch.stack([absolute_sum(later - earlier), absolute_sum(later) + absolute_sum(earlier)])
            )
        return torch.stack(rows)

    def combine(self, sums: Sequence[Sums]) -> float:
        """Mean over the strides; over samples as `over` says."""
        samples = [self._per_stride(pairs) for pairs in sums]
        per_sample = [sum(column) / len(column) for column in zip(*samples, strict=True)]
        return max(per_sample, key=lambda x: (x != x, x))

    def _per_stride(self, pairs: Sums) -> list[float]:
        if self.over == "all":
            pairs = [(sum(n for n, _ in pairs), sum(d for _, d in pairs))]
        return [n / d if d else float("nan") for n, d in pairs]


Signal = RelativeChange | MotionRatio
