"""Realised speed and memory on models whose transformer dominates."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from keystep.engine.summary import format_bytes
from keystep.lab.rows import SpeedRow
from keystep.lab.tables.table import IDLE, Table, fill_failed
from keystep.report.table import MISSING

HEADINGS = (
    "method", "setting", "ms / evaluation", "compute", "speed-up", "realised", "end to end", "held", "peak",
)  # fmt: skip
LEAD = (
    "Speed-up of the denoising loop, plain / accelerated: median of pairs (least to most), the two of a pair "
    "a scheduler step each in turns. "
    "Realised: speed-up x compute; 1.00 = every skipped operation became saved time. Held: the most bytes"
    " at the end of a step beyond what the plain pipeline holds, and in units of one hidden state. Peak: "
    "the accelerator's most allocated memory (plain)."
)


def tabulate_speed(model: str, rows: Sequence[SpeedRow]) -> Table:
    """A line a contestant."""
    return Table(f"Speed and memory, {model}", LEAD, HEADINGS, tuple(map(_summarise, rows)))


def _summarise(row: SpeedRow) -> tuple[str, ...]:
    name = row.contestant
    if row.error:
        return fill_failed((name.family, name.setting), row.error, len(HEADINGS))
    return (
        name.family,
        name.setting,
        f"{1000 * median(pair.plain_loop_s for pair in row.pairs) / row.num_plain_steps:.0f}",
        f"{row.compute:.3f}" + (f" {IDLE}" if row.is_idle else ""),
        _format_speedup(row),
        f"{row.realised:.2f}",
        f"{median(pair.plain_total_s / pair.total_s for pair in row.pairs):.2f}x",
        _format_held(row),
        f"{format_bytes(row.peak_bytes)} ({format_bytes(row.plain_peak_bytes)})"
        if row.peak_bytes
        else MISSING,
    )


def _format_speedup(row: SpeedRow) -> str:
    pairs = "1 pair" if len(row.pairs) == 1 else f"{len(row.pairs)} pairs"
    spread = f"{min(row.speedups):.2f} to {max(row.speedups):.2f}, {pairs}"
    return f"{row.speedup:.2f}x ({spread})"


def _format_held(row: SpeedRow) -> str:
    text = format_bytes(row.held_bytes)
    return f"{text}, {row.held_bytes / row.hidden_state_bytes:.2f}" if row.hidden_state_bytes else text


def _format_peak(row: SpeedRow) -> str:
    if not row.peak_bytes:
        return MISSING
    return f"{format_bytes(row.peak_bytes)} ({format_bytes(row.plain_peak_bytes)})"
