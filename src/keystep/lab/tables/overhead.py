"""What it costs to be attached, on models so narrow that nothing else stands out."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from keystep.lab.rows import SpeedRow
from keystep.lab.tables.table import IDLE, Table, fill_failed

REAL_EVALUATION_MS = 200.0  # of a model whose overhead is to stay under a per cent
HEADINGS = (
    "method",
    "plain, ms / evaluation",
    "cost, ms / evaluation",
    f"share of {REAL_EVALUATION_MS:g} ms",
    "note",
)
LEAD = (
    "Processor time of the denoising loop on a narrow model, accelerated less plain, median of pairs in "
    "turns; it does not depend on the width. What skips is faster, so only methods that never skip show "
    "their cost."
)


def tabulate_overhead(model: str, rows: Sequence[SpeedRow]) -> Table:
    """A line a contestant that computed everything."""
    shown = [row for row in rows if row.error or row.flops == row.plain_flops]
    return Table(f"Overhead, {model}", LEAD, HEADINGS, tuple(map(_summarise, shown)))


def _summarise(row: SpeedRow) -> tuple[str, ...]:
    if row.error:
        return fill_failed((str(row.contestant),), row.error, len(HEADINGS))
    plain = 1000 * median(plain for plain, _ in row.cpu_pairs) / row.num_steps
    cost = 1000 * median(own - plain for plain, own in row.cpu_pairs) / row.num_steps
    return (
        str(row.contestant),
        f"{plain:.2f}",
        f"{cost:+.2f}",
        f"{cost / REAL_EVALUATION_MS:+.2%}",
        IDLE if row.is_idle else "",
    )
