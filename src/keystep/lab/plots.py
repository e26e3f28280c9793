"""Plots of the results: quality over compute, realised speed, memory. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keystep.lab.contestant import FEWER_STEPS, OURS
from keystep.lab.curves import HIGH, LOW, Curve, make_curves
from keystep.lab.rows import QualityRow, Row, SpeedRow
from keystep.lab.shapes import NARROW
from keystep.lab.tables.table import group_by
from keystep.media import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING_MATPLOTLIB = (
    "matplotlib is not installed, so there are no plots: pip install '.[bench]' in keystep's sources"
)
LINES = {OURS: "-", FEWER_STEPS: ":"}  # rivals: dashed
MARKERS = "osDv^<>ph*XP"
NUM_COLOURED = 10  # curves that are told apart by colour; the others are grey, with their names beside them
SMALL: dict[str, Any] = {"fontsize": 5.5, "color": "0.4"}
MIB = 2**20
DPI = 130


def has_matplotlib() -> bool:
    """Whether plots can be drawn, without importing anything."""
    return find_spec("matplotlib") is not None


def write_plots(folder: Path, rows: Sequence[Row]) -> dict[str, Path]:
    """Write every plot that the rows fill, as PNG files.

    Returns:
        Title -> file.
    """
    figures: dict[str, Any] = {}
    quality = [row for row in rows if isinstance(row, QualityRow)]
    for model, group in group_by(quality, lambda row: row.model).items():
        figures[f"Quality over compute, {model}"] = _plot_quality(group)
    speed = [row for row in rows if isinstance(row, SpeedRow) and not row.error]
    wide = [row for row in speed if not row.model.endswith(NARROW)]
    for model, group in group_by(wide, lambda row: row.model).items():
        figures[f"Realised speed, {model}"] = _plot_speed(group)
        figures[f"Memory, {model}"] = _plot_memory(group)
    paths = {}
    for title, figure in figures.items():
        figure.suptitle(title)
        path = folder / "plots" / f"{title.lower().replace(', ', '-').replace(' ', '-')}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=DPI)
        paths[title] = path
    return paths


def _new_figure(width: float, height: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure  # without pyplot, which keeps every figure and wants a display

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _plot_quality(rows: Sequence[QualityRow]) -> Figure:
    figure, axes = _new_figure(11, 6.5)
    axes.axvspan(LOW, HIGH, color="0.5", alpha=0.08)  # where BD-PSNR looks
    every = make_curves(rows)
    curves = [curve for curve in every if len(curve.settings) > 1] or every
    curves.sort(key=_height_at_middle, reverse=True)
    for index, curve in enumerate(curves):
        line = LINES.get(curve.family.partition(":")[0], "--")
        if index < NUM_COLOURED:
            marker = MARKERS[index % len(MARKERS)]
            axes.plot(*curve.points, line, marker=marker, markersize=4, label=curve.family)
        else:
            axes.plot(*curve.points, line, marker=".", color="0.65", linewidth=0.8)
            x, y = (values[-1] for values in curve.points)
            axes.annotate(curve.family, (x, y), xytext=(2, 2), textcoords="offset points", **SMALL)
    axes.set_xscale("log")
    axes.set_xlim(0.18, 1.15)
    axes.set_xticks([0.2, 0.25, 0.33, 0.5, 0.7, 1], labels=["5x", "4x", "3x", "2x", "1.4x", "1x"])
    axes.minorticks_off()
    axes.set_xlabel("less compute than the plain video")
    axes.set_ylabel("PSNR to the plain video, dB")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _height_at_middle(curve: Curve) -> float:
    """dB in the middle of where BD-PSNR looks; curves that do not reach there come last."""
    compute, psnr = curve.points
    middle = (LOW * HIGH) ** 0.5
    if not compute.size or not compute[0] <= middle <= compute[-1]:
        return float("-inf")
    return float(np.interp(middle, compute, psnr))


def _plot_speed(rows: Sequence[SpeedRow]) -> Figure:
    figure, axes = _new_figure(10, 6)
    most = max(max(1 / row.compute, *row.speedups) for row in rows)
    axes.plot([1, most], [1, most], color="0.6", label="every skipped operation is saved time")
    for index, row in enumerate(rows):
        middle = row.speedup
        reach = [[middle - min(row.speedups)], [max(row.speedups) - middle]]
        axes.errorbar(
            [1 / row.compute],
            [middle],
            yerr=reach,
            fmt=MARKERS[index % len(MARKERS)],
            label=str(row.contestant),
        )
    axes.set_xlabel("times less compute")
    axes.set_ylabel("times faster (median, least to most)")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _plot_memory(rows: Sequence[SpeedRow]) -> Figure:
    figure, axes = _new_figure(9, 1 + 0.3 * len(rows))
    names = [str(row.contestant) for row in rows]
    bars = axes.barh(names, [row.held_bytes / MIB for row in rows])
    units = [row.held_bytes / row.hidden_state_bytes if row.hidden_state_bytes else 0 for row in rows]
    axes.bar_label(bars, labels=[f"{unit:.1f} hidden states" for unit in units], padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("MiB held beyond the plain pipeline")
    return figure
