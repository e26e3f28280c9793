"""The bench's results as tables of text, to be drawn as markdown or in the page."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.lab.curves import make_curves
from keystep.lab.rows import QualityRow, RobustnessRow, Row, SpeedRow
from keystep.lab.shapes import NARROW
from keystep.lab.tables.gains import tabulate_gains
from keystep.lab.tables.overhead import tabulate_overhead
from keystep.lab.tables.pairs import tabulate_pairs
from keystep.lab.tables.quality import tabulate_quality
from keystep.lab.tables.robustness import tabulate_robustness
from keystep.lab.tables.speed import tabulate_speed
from keystep.lab.tables.table import Table, group_by, to_markdown

__all__ = ["Table", "make_tables", "to_markdown"]


def make_tables(rows: Sequence[Row]) -> list[Table]:
    """Every table that the rows fill: a model at a time, quality first."""
    tables: list[Table] = []
    quality = [row for row in rows if isinstance(row, QualityRow)]
    for model, group in group_by(quality, lambda row: row.model).items():
        curves = make_curves(group)
        tables += [
            tabulate_gains(model, curves),
            tabulate_pairs(model, curves, group),
            tabulate_quality(model, group),
        ]
    speed = [row for row in rows if isinstance(row, SpeedRow)]
    for model, group in group_by(speed, lambda row: row.model).items():
        # on a narrow model time is all overhead, and speed means nothing
        tabulate = tabulate_overhead if model.endswith(NARROW) else tabulate_speed
        tables.append(tabulate(model, group))
    robustness = [row for row in rows if isinstance(row, RobustnessRow)]
    for model, group in group_by(robustness, lambda row: row.model).items():
        tables.append(tabulate_robustness(model, group))
    return tables
