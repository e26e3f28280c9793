"""Signals: numbers measured at a probe, kept as float32 (numerator, denominator) sums.

Sums, not means: ranks that hold parts of a tensor, and calls that hold one branch each, combine by addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from keystep.errors import require
from keystep.what.site import AttentionResidual, Correction, Forecast, Probe

Pairs = Sequence[tuple[float, float]]  # one (numerator, denominator) per sample
Probes = Probe | tuple[Probe, ...]
Since = Literal["computed", "previous"]
Previous = Sequence[torch.Tensor]  # what was probed before, newest last, as many as `num_previous`


def ratio(numerator: float, denominator: float, empty: float = 0.0) -> float:
    """numerator / denominator; 0 / 0 is `empty`, x / 0 infinite, nan stays nan."""
    if denominator == 0:
        return empty if numerator == 0 else float("inf")
    return numerator / denominator


def probes_of(probe: Probes) -> tuple[Probe, ...]:
    """One probe or several as a tuple."""
    return probe if isinstance(probe, tuple) else (probe,)


def mean_ratio(rows: Sequence[Pairs], over: str, empty: float) -> float:
    """Mean of the ratios over the rows; samples pooled, or the largest one.

    Args:
        rows: (numerator, denominator) per sample, a row for each probe and stride.
        over: `"all"` = sum the samples' numbers first; `"lead"` = the most restless sample counts.
        empty: what 0 / 0 is worth.
    """
    if over == "all":
        rows = [[(sum(n for n, _ in pairs), sum(d for _, d in pairs))] for pairs in rows]
    per_row = [[ratio(n, d, empty) for n, d in pairs] for pairs in rows]
    per_sample = [sum(column) / len(column) for column in zip(*per_row, strict=True)]
    return max(per_sample, key=lambda x: (x != x, x))  # nan counts as the largest


def absolute_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum of |x| per sample, (B,), accumulated in float32."""
    return x.flatten(1).abs().sum(1, dtype=torch.float32)


@dataclass(frozen=True)
class RelativeChange:
    """Relative L1 change of a probed value since it was last computed: |new - old|_1 / |old|_1.

    Attributes:
        probe: where it is measured; of several probes the mean counts.
        over: `"lead"`: only the conditional branch, the most restless sample of a batch counts, so a video is
            never skipped more because of its batch mates. `"all"`: one ratio of sums over all branches and
            samples, as the AdaCache reference code pools them.
        since: `"computed"`: against the last evaluation that was computed; `"previous"`: against the one
            before, computed or not.
        name: in traces and for the controller.
    """

    probe: Probes = field(default_factory=AttentionResidual)
    over: Literal["lead", "all"] = "lead"
    since: Since = "computed"
    name: str = "distance"
    num_previous: ClassVar[int] = 1

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Sums per sample, (1, 2, B): `value` and what was probed before are (B, frames * tokens, C)."""
        del num_frames
        old = previous[-1]
        return torch.stack([absolute_sum(value - old), absolute_sum(old)])[None]

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return probes_of(self.probe)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """One number from the pairs of all samples, a row for each probe; nothing there, nothing changed."""
        return mean_ratio(rows, self.over, empty=0.0)


@dataclass(frozen=True)
class MotionRatio:
    """How much a probed value differs from frame to frame: |F[j:] - F[:-j]|_1 / (|F[j:]|_1 + |F[:-j]|_1).

    The motion estimate of AdaCache's motion regularisation (arXiv 2411.02397, eq. 8), mean over the strides.
    0 = all frames alike; independent Gaussian frames give 0.707. nan where there are not more frames than the
    stride.

    Attributes:
        probe: where it is measured; of several probes the mean counts.
        over: as for `RelativeChange`.
        strides: distances j between the compared frames.
    """

    probe: Probes = field(default_factory=AttentionResidual)
    over: Literal["lead", "all"] = "lead"
    strides: tuple[int, ...] = (1,)
    since: ClassVar[Since] = "computed"
    name: ClassVar[str] = "motion"
    num_previous: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require(
            len(self.strides) > 0 and all(j >= 1 for j in self.strides),
            "MotionRatio.strides",
            self.strides,
            "one or more whole numbers of frames >= 1",
        )

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Sums per stride and sample, (strides, 2, B); `value` is (B, frames * tokens, C), frame-major."""
        del previous
        if value.shape[1] % num_frames:
            raise ValueError(
                f"motion: the {value.shape[1]} tokens at the probe are not those of {num_frames} frames (the "
                "model has others among them), so motion cannot be measured; use a method without it"
            )
        frames = value.unflatten(1, (num_frames, -1))
        rows = []
        for stride in self.strides:
            later, earlier = frames[:, stride:], frames[:, : max(0, num_frames - stride)]
            rows.append(
                torch.stack([absolute_sum(later - earlier), absolute_sum(later) + absolute_sum(earlier)])
            )
        return torch.stack(rows)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return probes_of(self.probe)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """Mean over strides and probes; over samples as `over` says. No frames to compare, no motion: nan."""
        return mean_ratio(rows, self.over, empty=float("nan"))


@dataclass(frozen=True)
class MeanChange:
    """Mean absolute change of a probed value, in its own units.

    Attributes:
        name: in traces and for the controller.
        probe, over, since: as for `RelativeChange`.
    """

    name: str
    probe: Probes
    since: Since = "computed"
    over: Literal["lead", "all"] = "lead"
    num_previous: ClassVar[int] = 1

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Sums per sample, (1, 2, B): of the change, and of ones."""
        del num_frames
        return mean_sums(value - previous[-1])

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return probes_of(self.probe)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """One number from the pairs of all samples."""
        return mean_ratio(rows, self.over, empty=0.0)


@dataclass(frozen=True)
class MeanSize:
    """Mean absolute value of what is probed; attributes as for `MeanChange`."""

    name: str
    probe: Probes
    over: Literal["lead", "all"] = "lead"
    since: ClassVar[Since] = "computed"
    num_previous: ClassVar[int] = 0

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Sums per sample, (1, 2, B): of the absolute value, and of ones."""
        del previous, num_frames
        return mean_sums(value)

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return probes_of(self.probe)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """One number from the pairs of all samples."""
        return mean_ratio(rows, self.over, empty=0.0)


@dataclass(frozen=True)
class Progress:
    """How far a probed value has gone on: |new - older|_1 / |newer - older|_1, against the last two computed.

    1 = it is where it was when last computed (or as far from the value before), 1.5 = half a step further.

    Attributes:
        probe, over: as for `RelativeChange`.
    """

    probe: Probes
    over: Literal["lead", "all"] = "lead"
    since: ClassVar[Since] = "computed"
    name: ClassVar[str] = "progress"
    num_previous: ClassVar[int] = 2

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Sums per sample, (1, 2, B): of the two differences."""
        del num_frames
        older, newer = previous
        return torch.stack([absolute_sum(value - older), absolute_sum(newer - older)])[None]

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return probes_of(self.probe)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """One number from the pairs of all samples."""
        return mean_ratio(rows, self.over, empty=1.0)


@dataclass(frozen=True)
class LatentShare:
    """The size of what is probed over that of the latent, both as Euclidean norms.

    Attributes:
        name: in traces and for the controller.
        probe: where it is measured.
    """

    name: str
    probe: Forecast | Correction
    over: ClassVar[Literal["lead", "all"]] = "lead"
    since: ClassVar[Since] = "computed"
    num_previous: ClassVar[int] = 0

    def measure(self, value: torch.Tensor, previous: Previous, num_frames: int) -> torch.Tensor:
        """Squared sums per sample, (1, 2, B): `value` is what is probed and the latent, stacked."""
        del previous, num_frames
        return value.float().flatten(2).square().sum(2)[None]

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Where it is measured."""
        return (self.probe,)

    def combine(self, rows: Sequence[Pairs]) -> float:
        """The largest share of all samples: a video is never skipped more because of its batch mates."""
        return mean_ratio(rows, self.over, empty=0.0) ** 0.5


def mean_sums(value: torch.Tensor) -> torch.Tensor:
    """Numerator and denominator of the mean of |value| per sample, (1, 2, B)."""
    total = absolute_sum(value)
    return torch.stack([total, torch.full_like(total, value[0].numel())])[None]


Signal = RelativeChange | MotionRatio | MeanChange | MeanSize | Progress | LatentShare
