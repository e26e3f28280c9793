"""How near every setting's videos are to the plain ones."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from keystep.engine.summary import format_bytes
from keystep.lab.rows import QualityRow
from keystep.lab.tables.table import IDLE, Table, fill_failed, format_mean, group_by
from keystep.metrics.outcome import low_percentile
from keystep.report.table import MISSING, format_psnr

HEADINGS = (
    "method", "setting", "compute", "key steps", "PSNR", "to converged", "SSIM", "flicker", "shown", "held",
    "videos",
)  # fmt: skip
LEAD = (
    "Means over videos. Compute: operations of the denoising loop over the plain ones. Key steps: "
    "evaluations that cost what a plain one does: median, least and most. PSNR in dB to the plain video "
    "of the same noise (10th percentile), and to a converged one. Shown: share of the videos in which "
    "every field reads as the prompt says. Held: the most bytes at the end of a step beyond what the "
    "plain pipeline holds."
)


def tabulate_quality(model: str, rows: Sequence[QualityRow]) -> Table:
    """A line a contestant, over all of its videos."""
    families = group_by(rows, lambda row: row.contestant.family).values()
    settings = (group for family in families for group in group_by(family, lambda row: row.setting).values())
    return Table(f"Quality, {model}", LEAD, HEADINGS, tuple(map(_summarise, settings)))


def _summarise(rows: Sequence[QualityRow]) -> tuple[str, ...]:
    name = rows[0].contestant
    errors = [row.error for row in rows if row.error]
    if errors:
        return fill_failed((name.family, name.setting), errors[0], len(HEADINGS))
    qualities = [row.to_plain for row in rows if row.to_plain is not None]
    converged = [row.to_converged for row in rows if row.to_converged is not None]
    readings = [all(row.reading.values()) for row in rows if row.reading is not None]
    idle = f" {IDLE}" if all(row.is_idle for row in rows) else ""
    return (
        name.family,
        name.setting,
        f"{fmean(row.compute for row in rows):.3f}{idle}",
        _format_key_steps([row.key_steps for row in rows], rows[0].num_steps),
        _format_psnr([quality.psnr for quality in qualities]),
        format_psnr(fmean(converged)) if converged else MISSING,
        format_mean((quality.ssim for quality in qualities), 4),
        format_mean((quality.flicker_error for quality in qualities), 4),
        f"{fmean(readings):.0%}" if readings else MISSING,
        format_bytes(max(row.held_bytes for row in rows)),
        f"{len(rows)}",
    )


def _format_key_steps(counts: Sequence[int], num_steps: int) -> str:
    spread = f" ({min(counts)} to {max(counts)})" if min(counts) < max(counts) else ""
    return f"{median(counts):g}/{num_steps}{spread}"


def _format_psnr(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    mean = format_psnr(fmean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({format_psnr(low_percentile(values))})"
