"""Quality over compute: a method's settings as a curve, and the Bjontegaard delta between two curves.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33 (2001), with monotone
piecewise cubics in place of its polynomials, as its successors do; the rate is the compute ratio.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from keystep.lab.contestant import PLAIN
from keystep.lab.rows import QualityRow

Array = NDArray[np.float64]
LOW, HIGH = 0.25, 0.5  # compute ratios between which curves are compared: 4 to 2 times fewer evaluations
MIN_POINTS = 4  # fewer make no curve
MIN_SPAN = 1.1  # curves that share a smaller factor of compute than this are not compared
NUM_RESAMPLES, CONFIDENCE = 500, 95  # bootstrap over videos; per cent


@dataclass(frozen=True)
class Curve:
    """The settings of one method on the videos that all of them made.

    Attributes:
        family: whose method.
        settings: in words, P of them, ascending in compute.
        compute: compute ratio of each setting and video, (P, V).
        psnr: dB to the plain video, (P, V).
        videos: (prompt, seed) of the V columns.
    """

    family: str
    settings: tuple[str, ...]
    compute: Array
    psnr: Array
    videos: tuple[tuple[str, int], ...]

    @property
    def points(self) -> tuple[Array, Array]:
        """Mean compute and mean PSNR of each setting, (P,) each, infinite means left out."""
        return _points(self.compute, self.psnr)

    def on(self, videos: Sequence[tuple[str, int]]) -> Curve:
        """The same curve on these of its videos, in this order."""
        columns = [self.videos.index(video) for video in videos]
        return replace(
            self, compute=self.compute[:, columns], psnr=self.psnr[:, columns], videos=tuple(videos)
        )


@dataclass(frozen=True)
class Delta:
    """How many dB one curve lies above another, on average over the logarithm of compute.

    Attributes:
        gain: dB; positive = better.
        low, high: 95 % interval of the gain over resampled videos; None with fewer than two videos.
        begin, end: compute ratios between which both curves reach.
    """

    gain: float
    low: float | None
    high: float | None
    begin: float
    end: float


def make_curves(rows: Iterable[QualityRow]) -> list[Curve]:
    """A curve for each family in the rows of one model, of the settings that have made the most videos."""
    families: dict[str, dict[str, dict[tuple[str, int], QualityRow]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if not row.error and row.source != PLAIN and row.to_plain is not None:
            name = row.contestant
            families[name.family][name.setting][row.prompt, row.seed] = row
    return [_make_curve(family, settings) for family, settings in families.items()]


def _make_curve(family: str, settings: dict[str, dict[tuple[str, int], QualityRow]]) -> Curve:
    most = max(map(len, settings.values()))
    whole = {setting: videos for setting, videos in settings.items() if len(videos) == most}
    ordered = sorted(whole, key=lambda setting: sum(row.compute for row in whole[setting].values()))
    videos = tuple(whole[ordered[0]])
    compute = [[whole[setting][video].compute for video in videos] for setting in ordered]
    psnr = [[_psnr(whole[setting][video]) for video in videos] for setting in ordered]
    return Curve(family, tuple(ordered), np.array(compute), np.array(psnr), videos)


def _psnr(row: QualityRow) -> float:
    assert row.to_plain is not None
    return row.to_plain.psnr


def compare(curve: Curve, reference: Curve) -> Delta | None:
    """BD-PSNR of a curve over another one; None where they have too few points or too little in common."""
    curve, reference = _in_common(curve, reference)
    found = bd_psnr(*curve.points, *reference.points)
    if found is None:
        return None
    gain, begin, end = found
    gains = _resample(curve, reference)
    margin = (100 - CONFIDENCE) / 2
    low, high = np.percentile(gains, [margin, 100 - margin]) if gains else (None, None)
    return Delta(gain, low, high, begin, end)


def gains_at(curve: Curve, reference: Curve) -> list[float]:
    """dB that a curve lies above each point of another one that is within its reach; nothing is extrapolated.

    Between its points the curve is a monotone cubic over log(compute).
    """
    curve, reference = _in_common(curve, reference)
    x, y = curve.points
    at = [
        (compute, psnr) for compute, psnr in zip(*reference.points, strict=True) if x[0] <= compute <= x[-1]
    ]
    if len(x) < 2:
        return []
    own = PchipInterpolator(np.log(x), y)
    return [float(own(math.log(compute)) - psnr) for compute, psnr in at]


def gains_beyond(curve: Curve, reference: Curve) -> list[float]:
    """dB that the best point of a curve lies above each point of another one that computes more than any of
    the curve's, and skips something.
    """
    curve, reference = _in_common(curve, reference)
    x, y = curve.points
    if not len(x):
        return []
    points = zip(*reference.points, strict=True)
    return [float(y.max() - psnr) for compute, psnr in points if x[-1] < compute < 1]


def bd_psnr(
    compute: Array, psnr: Array, reference_compute: Array, reference_psnr: Array
) -> tuple[float, float, float] | None:
    """Average difference in dB over log(compute) where both curves reach, between LOW and HIGH.

    Args:
        compute: compute ratios, ascending, (P,).
        psnr: dB, (P,).
        reference_compute, reference_psnr: of the other curve, (Q,).

    Returns:
        The difference, and the compute ratios between which it was taken; None where a curve has fewer than
        `MIN_POINTS` different points or both share less than a factor of `MIN_SPAN`.
    """
    if min(len(compute), len(reference_compute)) < MIN_POINTS:
        return None
    begin = max(LOW, compute[0], reference_compute[0])
    end = min(HIGH, compute[-1], reference_compute[-1])
    if end < begin * MIN_SPAN:
        return None
    low, high = math.log(begin), math.log(end)
    areas = [
        float(PchipInterpolator(np.log(x), y).integrate(low, high))
        for x, y in ((compute, psnr), (reference_compute, reference_psnr))
    ]
    return (areas[0] - areas[1]) / (high - low), float(begin), float(end)


def _in_common(curve: Curve, reference: Curve) -> tuple[Curve, Curve]:
    """Both on the videos that both have; easy and hard ones are 10 dB apart."""
    videos = [video for video in curve.videos if video in reference.videos]
    return curve.on(videos), reference.on(videos)


def _resample(curve: Curve, reference: Curve) -> list[float]:
    """Gains over videos drawn with replacement, the same ones for both; empty for less than two videos."""
    if len(curve.videos) < 2:
        return []
    generator = np.random.default_rng(0)
    gains = []
    for _ in range(NUM_RESAMPLES):
        drawn = generator.integers(len(curve.videos), size=len(curve.videos))
        points = [_points(each.compute[:, drawn], each.psnr[:, drawn]) for each in (curve, reference)]
        found = bd_psnr(*points[0], *points[1])
        if found is not None:
            gains.append(found[0])
    return gains


def _points(compute: Array, psnr: Array) -> tuple[Array, Array]:
    if not compute.shape[1]:
        return np.array([]), np.array([])
    x, y = compute.mean(axis=1), psnr.mean(axis=1)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    # A cubic needs ascending, different abscissae: settings that cost the same count as their mean.
    unique, inverse = np.unique(np.round(x, 6), return_inverse=True)
    means = [float(y[inverse == index].mean()) for index in range(len(unique))]
    return unique, np.array(means)


def find(curves: Sequence[Curve], family: str) -> Curve | None:
    """The curve of a family."""
    return next((curve for curve in curves if curve.family == family), None)


def compare_with_best(curves: Sequence[Curve], family: str) -> tuple[Delta, str] | None:
    """BD-PSNR of a curve over the one that is hardest for it to beat, and whose that is.

    Other curves of the same method are left out (`family` followed by words).
    """
    own = find(curves, family)
    if own is None:
        return None
    others = [curve for curve in curves if not curve.family.startswith(family)]
    deltas = [(delta, other.family) for other in others if (delta := compare(own, other)) is not None]
    return min(deltas, key=lambda pair: pair[0].gain, default=None)
