"""Which settings are worth having: the Pareto front of compute and likeness, and one of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """What a setting does on all prompts and seeds.

    Attributes:
        compute: operations of the denoising loop over the plain ones', all videos together (lower = faster).
        psnr: dB to the plain video of the same noise, mean over videos; identical videos count as 100 dB.
        psnr_low: 10th percentile of the same.
    """

    compute: float
    psnr: float
    psnr_low: float


@dataclass(frozen=True)
class Tried:
    """A setting that was tried.

    Attributes:
        number: of the trial; -1 = the method as it comes.
        values: of the knobs; none for the method as it comes.
        score: what it does.
        likeness: the figure of the score that the search is about.
    """

    number: int
    values: dict[str, Any]
    score: Score
    likeness: float


def find_front(tried: Sequence[Tried]) -> list[Tried]:
    """Those that no other one beats in both respects, least compute first; of equals the first tried."""
    front: list[Tried] = []
    for one in sorted(tried, key=lambda one: (one.score.compute, -one.likeness, one.number)):
        if not front or one.likeness > front[-1].likeness:
            front.append(one)
    return front


def choose(front: Sequence[Tried], at_psnr: float | None = None, at_compute: float | None = None) -> Tried:
    """One of a front.

    Args:
        front: least compute first.
        at_psnr: the fastest that is at least so like.
        at_compute: the likest that needs at most so much. With neither: the bend of the front, farthest from
            the straight line between its ends, without what skips nothing.

    Raises:
        ValueError: none is as wanted; says what there is.
    """
    fitting = [
        one
        for one in front
        if (at_psnr is None or one.likeness >= at_psnr)
        and (at_compute is None or one.score.compute <= at_compute)
    ]
    if not fitting:
        wanted = {"--at-psnr": at_psnr, "--at-compute": at_compute}
        given = ", ".join(f"{name} {value:g}" for name, value in wanted.items() if value is not None)
        least, most = front[0], front[-1]
        raise ValueError(
            f"{given}: nothing that was tried is so; there is {least.likeness:.1f} dB at a compute ratio of "
            f"{least.score.compute:.3f} to {most.likeness:.1f} dB at {most.score.compute:.3f}"
        )
    if at_psnr is not None:
        return fitting[0]
    if at_compute is not None:
        return fitting[-1]
    return _find_bend([one for one in front if one.score.compute < 1] or front)


def _find_bend(front: Sequence[Tried]) -> Tried:
    least, most = front[0], front[-1]
    width, height = most.score.compute - least.score.compute, most.likeness - least.likeness

    def gain(one: Tried) -> float:
        """How far above the line, with both ends of the front one apart in both directions."""
        if not width or not height:
            return 0.0
        return (one.likeness - least.likeness) / height - (one.score.compute - least.score.compute) / width

    return max(front, key=gain)
