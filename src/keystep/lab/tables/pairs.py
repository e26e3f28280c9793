"""A method in two implementations: keystep's against a rival's, at equal compute."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from keystep.lab.cache_dit import CACHE_DIT
from keystep.lab.contestant import OURS, Name
from keystep.lab.curves import Curve, find, gains_at, gains_beyond
from keystep.lab.diffusers_hooks import DIFFUSERS
from keystep.lab.rows import QualityRow
from keystep.lab.tables.table import Table
from keystep.report.table import MISSING

# Ours -> the same method elsewhere.
PAIRS: tuple[tuple[str, Name], ...] = (
    ("fastercache", Name(DIFFUSERS, "FasterCache", "")),
    ("pab", Name(DIFFUSERS, "PAB", "")),
    ("fbcache", Name(DIFFUSERS, "FirstBlockCache", "")),
    ("fbcache", Name(CACHE_DIT, "DBCache, first block", "")),
    ("dbcache", Name(CACHE_DIT, "DBCache, first block + TaylorSeer", "")),
    ("taylorseer", Name(DIFFUSERS, "TaylorSeer, attention named", "")),
    ("taylorseer lite", Name(DIFFUSERS, "TaylorSeer-lite", "")),
    ("magcache", Name(DIFFUSERS, "MagCache", "")),
    ("seacache", Name(DIFFUSERS, "SeaCache", "")),
)
HEADINGS = (
    "method", "the same elsewhere", "gain of ours at equal compute", "least to most", "settings",
    "ours better at less compute",
)  # fmt: skip
LEAD = (
    "PSNR to the plain video of keystep's curve less that of the rival's, at the compute of each setting of "
    "the rival's that skips anything and lies within the reach of ours; mean over those settings, in dB. "
    "Last: of its settings that compute more than any of ours, those that ours beat nevertheless. Settings "
    "are those of the quality table."
)
IDLE = "it skips nothing here"


def tabulate_pairs(model: str, curves: Sequence[Curve], rows: Sequence[QualityRow]) -> Table:
    """A line for each method that somebody else has too."""
    lines = []
    for method, rival in PAIRS:
        own, other = find(curves, Name(OURS, method, "").family), find(curves, rival.family)
        if own is None:
            continue
        errors = [row.error for row in rows if row.error and row.contestant.family == rival.family]
        if other is not None:
            lines.append((method, rival.family, *_compare(own, other)))
        elif errors:
            lines.append((method, rival.family, errors[0], MISSING, MISSING, MISSING))
    return Table(f"The same method twice, {model}", LEAD, HEADINGS, tuple(lines))


def _compare(own: Curve, other: Curve) -> tuple[str, str, str, str]:
    if (other.compute == 1).all():
        return IDLE, MISSING, f"0 of {len(other.settings)}", MISSING
    gains, beyond = gains_at(own, other), gains_beyond(own, other)
    count = f"{len(gains)} of {len(other.settings)}"
    beaten = f"{sum(gain > 0 for gain in beyond)} of {len(beyond)}" if beyond else MISSING
    if not gains:
        return MISSING, MISSING, count, beaten
    return f"{fmean(gains):+.1f} dB", f"{min(gains):+.1f} to {max(gains):+.1f}", count, beaten
