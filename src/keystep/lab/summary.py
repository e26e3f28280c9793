"""The bench in a few numbers: auto beside the best of all others, on the whole curve and at single speeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

import numpy as np

from keystep.lab.contestant import OURS, PLAIN, Name
from keystep.lab.curves import compare_with_best, make_curves
from keystep.lab.rows import QualityRow, Row
from keystep.lab.tables.table import group_by
from keystep.metrics.outcome import low_percentile

OWN = Name(OURS, "auto", "").family
CONVERGED = Name(OURS, "auto converged", "").family
FEWER = (2, 3, 4)  # times fewer evaluations
ROUNDING = 0.005  # a curve that ends so little beside a compute ratio reaches it

Point = Mapping[str, float]  # means over the videos of one setting


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Figures by model.

    Returns:
        `bd_psnr.auto_vs_best_other`: dB with its interval, and who that is. `at`: at 2, 3 and 4 times less
        compute, interpolated over log(compute), auto and the other method with the highest mean: PSNR in dB
        (`psnr`), its 10th percentile over videos (`p10`), PSNR to the converged video (`to_converged`), the
        share of videos that show what the prompt says (`shown`); and auto by quality "converged" beside the
        other method that comes nearest to the converged video. `plain`: the same of the plain pipeline.
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
    curves = {
        family: sorted(map(_mean, group_by(own, lambda row: row.setting).values()), key=_compute_of)
        for family, own in group_by(rows, lambda row: row.contestant.family).items()
        if family != PLAIN
    }
    compared = {}
    for times in FEWER:
        there = {
            family: point
            for family, points in curves.items()
            if (point := _interpolate(points, 1 / times)) is not None
        }
        others = {family: point for family, point in there.items() if not family.startswith(OWN)}
        if OWN in there and others:
            compared[f"{times}x"] = {
                "auto": there[OWN],
                "best other": _best(others, "psnr"),
                "auto converged": there.get(CONVERGED, {}),
                "nearest other": _best(others, "to_converged"),
            }
    return compared


def _best(points: Mapping[str, Point], figure: str) -> dict[str, Any]:
    """Who leads in a figure, by name; empty where nobody has it."""
    having = {family: point for family, point in points.items() if figure in point}
    if not having:
        return {}
    best = max(having, key=lambda family: having[family][figure])
    return {"name": best, **having[best]}


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


def _interpolate(points: Sequence[Point], compute: float) -> dict[str, float] | None:
    """A curve at one compute ratio; None beyond its ends, nothing is extrapolated."""
    points = [point for point in points if "psnr" in point]
    places = [point["compute"] for point in points]
    if not points or not places[0] <= compute + ROUNDING or not compute - ROUNDING <= places[-1]:
        return None
    return {
        name: float(np.interp(math.log(compute), np.log(places), [point[name] for point in points]))
        for name in points[0]
        if name != "compute"
    }
