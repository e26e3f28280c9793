"""BD-PSNR: every method's curve against what a user would do instead, fewer steps."""

from __future__ import annotations

from collections.abc import Sequence

from keystep.lab.contestant import FEWER_STEPS, Name
from keystep.lab.curves import CONFIDENCE, HIGH, LOW, MIN_POINTS, Curve, Delta, compare, find
from keystep.lab.solvers import SAME_SAMPLER, SOLVERS
from keystep.lab.tables.table import Table
from keystep.report.table import MISSING

ANCHORS = tuple(Name(FEWER_STEPS, name, "").family for name in (SAME_SAMPLER, *SOLVERS))
LEAD = (
    f"Average gain in dB of PSNR to the plain video over log(compute) between {1 / HIGH:g} and {1 / LOW:g}"
    f" times less compute, where both curves reach (compute ratios in brackets), with the {CONFIDENCE} % "
    f"interval over resampled videos; positive = better than the column's. A dash: nothing in common. "
    "Reach: compute ratios of a method's settings."
)
UNRANKED = float("inf")
LEFT_OUT = f" Not compared, for want of {MIN_POINTS} settings that differ in compute and reach there: "


def tabulate_gains(model: str, curves: Sequence[Curve]) -> Table:
    """A line a curve, the best first against the anchor that is hardest to beat; the lead names it."""
    anchors = {family: curve for family in ANCHORS if (curve := find(curves, family)) is not None}
    lines = []
    for curve in curves:
        deltas = [compare(curve, anchor) if curve is not anchor else None for anchor in anchors.values()]
        lines.append((_rank(deltas), (curve.family, _format_reach(curve), *map(_format, deltas))))
    lines.sort(key=lambda line: line[0])
    rows = tuple(cells for rank, cells in lines if rank != UNRANKED)
    left_out = [cells[0] for rank, cells in lines if rank == UNRANKED and cells[0] not in anchors]
    lead = LEAD + (LEFT_OUT + ", ".join(left_out) + "." if left_out else "")
    if rows:
        lead = f"Best: {rows[0][0]}. {lead}"
    headings = ("method", "reach", *(f"against {family}" for family in anchors))
    return Table(f"BD-PSNR, {model}", lead, headings, rows)


def _rank(deltas: Sequence[Delta | None]) -> float:
    gains = [delta.gain for delta in deltas if delta is not None]
    return -min(gains) if gains else UNRANKED


def _format_reach(curve: Curve) -> str:
    compute = curve.compute.mean(axis=1)
    return f"{compute.min():.2f} to {compute.max():.2f}, {len(compute)} setting{'s' * (len(compute) > 1)}"


def _format(delta: Delta | None) -> str:
    if delta is None:
        return MISSING
    spread = "" if delta.low is None else f" ({delta.low:+.1f} to {delta.high:+.1f})"
    return f"{delta.gain:+.1f} dB{spread} [{delta.begin:.2f}, {delta.end:.2f}]"
