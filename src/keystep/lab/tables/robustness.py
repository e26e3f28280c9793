"""What else may happen to a user."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.lab.contestant import PLAIN
from keystep.lab.robustness import CHECKS
from keystep.lab.rows import RobustnessRow
from keystep.lab.tables.table import Table, fill_failed

HEADINGS = ("method", "setting", "compute", *CHECKS)
NOTHING_SKIPPED = "1.000 **nothing skipped**"


def tabulate_robustness(model: str, rows: Sequence[RobustnessRow]) -> Table:
    """A line a contestant, a column a check."""
    lead = "; ".join(f"{name}: {meaning}" for name, meaning in CHECKS.items()).capitalize() + "."
    return Table(f"Robustness, {model}", lead, HEADINGS, tuple(map(_summarise, rows)))


def _summarise(row: RobustnessRow) -> tuple[str, ...]:
    name = row.contestant
    if row.error:
        return fill_failed((name.family, name.setting), row.error, len(HEADINGS))
    compute = NOTHING_SKIPPED if row.compute == 1 and name.source != PLAIN else f"{row.compute:.3f}"
    checks = row.checks or {}
    return (name.family, name.setting, compute, *(checks.get(check, "") for check in CHECKS))
