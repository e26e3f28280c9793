"""The bench in a few numbers: auto beside the best of all others, on the whole curve and at single speeds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from keystep.lab.contestant import OURS, PLAIN, Name
from keystep.lab.curves import Curve, compare_with_best, make_curves
from keystep.lab.rows import QualityRow, Row
from keystep.lab.tables.table import group_by
from keystep.metrics.outcome import low_percentile

OWN = Name(OURS, "auto", "").family
CONVERGED = Name(OURS, "auto converged", "").family
FEWER = (2, 3, 4)  # times fewer evaluations
ROUNDING = 0.005  # a curve that ends so little beside a compute ratio reaches it

Point = Mapping[str, Any]  # means over the videos of one setting, and at best its name


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures by model.

    Returns:
        `bd_psnr.auto_vs_best_other`: dB with its interval, and who that is. `at`: at 2, 3 and 4 times less
        compute, interpolated over log(compute), auto and the other method that is hardest to beat in mean
        PSNR: PSNR in dB (`psnr`), its 10th percentile over videos (`p10`), PSNR to the converged video
        (`to_converged`), the share of videos that show what the prompt says (`shown`); and auto by quality
        "converged" beside the other that is hardest to beat in nearness to the converged video. Each pair
        is taken on the videos that both have. `plain`: the same of the plain pipeline.
    """
    quality = [row for row in rows if isinstance(row, QualityRow) and not row.error]
    models = group_by(quality, lambda row: row.model)
    return {
        "bd_psnr": {"auto_vs_best_other": _gains(models)},
        "at": {model: _compare_at(own) for model, own in models.items()},
        "plain": {
            model: _mean(plain)
            for model, own in models.items()
            if (plain := [row for row in own if row.source == PLAIN])
        },
    }


def _gains(models: Mapping[str, Sequence[QualityRow]]) -> dict[str, Any]:
    gains = {}
    for model, rows in models.items():
        found = compare_with_best(make_curves(rows), OWN)
        if found is not None:
            delta, other = found
            gains[model] = {**asdict(delta), "other": other}
    return gains


def _compare_at(rows: Sequence[QualityRow]) -> dict[str, Any]:
    families = group_by(rows, lambda row: row.contestant.family)
    curves = {curve.family: curve for curve in make_curves(rows)}
    others = [family for family in curves if not family.startswith(OWN)]

    def best_beside(own: str, compute: float, figure: str) -> tuple[Point, Point]:
        """Our own point and that of the other who leads most, or is least behind, on the videos of both."""
        pairs: list[tuple[Point, Point]] = []
        for family in others if own in curves else ():
            videos = {*curves[own].videos} & {*curves[family].videos}
            points = [_point_at(curves[each], families[each], videos, compute) for each in (own, family)]
            if all(figure in point for point in points):
                pairs.append((points[0], {"name": family, **points[1]}))
        return max(pairs, key=lambda pair: pair[1][figure] - pair[0][figure], default=({}, {}))

    compared = {}
    for times in FEWER:
        auto, best = best_beside(OWN, 1 / times, "psnr")
        converged, nearest = best_beside(CONVERGED, 1 / times, "to_converged")
        if auto:
            compared[f"{times}x"] = {
                "auto": auto,
                "best other": best,
                "auto converged": converged,
                "nearest other": nearest,
            }
    return compared


def _point_at(
    curve: Curve, rows: Sequence[QualityRow], videos: Collection[tuple[str, int]], compute: float
) -> Point:
    """One family at a compute ratio, on some of the videos of its curve; empty beyond the curve's ends."""
    on_curve = [row for row in rows if row.setting in curve.settings and (row.prompt, row.seed) in videos]
    settings = group_by(on_curve, lambda row: row.setting)
    return _interpolate(sorted(map(_mean, settings.values()), key=_compute_of), compute)


def _compute_of(point: Point) -> float:
    return point["compute"]


def _mean(rows: Sequence[QualityRow]) -> dict[str, float]:
    """Of one setting; what was not measured is left out."""
    psnr = [row.to_plain.psnr for row in rows if row.to_plain is not None]
    converged = [row.to_converged for row in rows if row.to_converged is not None]
    shown = [all(row.reading.values()) for row in rows if row.reading is not None]
    point = {"compute": fmean(row.compute for row in rows)}
    if psnr and all(map(math.isfinite, psnr)):
        point |= {"psnr": fmean(psnr), "p10": low_percentile(psnr)}
    if converged:
        point["to_converged"] = fmean(converged)
    if shown:
        point["shown"] = fmean(shown)
    return point


def _interpolate(points: Sequence[Point], compute: float) -> Point:
    """A curve at one compute ratio; empty beyond its ends, nothing is extrapolated."""
    points = [point for point in points if "psnr" in point]
    places = [point["compute"] for point in points]
    if not points or not places[0] <= compute + ROUNDING or not compute - ROUNDING <= places[-1]:
        return {}
    return {
        name: float(np.interp(math.log(compute), np.log(places), [point[name] for point in points]))
        for name in points[0]
        if name != "compute"
    }
