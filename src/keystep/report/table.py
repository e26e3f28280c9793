"""Summaries as rows of text, the same words on the terminal, in markdown and in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from keystep.metrics.outcome import Spread, Summary

MISSING = "–"
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
BYTES_PER_UNIT = 1000

# heading -> what it means; the page shows the meaning beside the table.
HEADINGS = {
    "method": "what ran; every row is compared with the plain video of the same prompt and seed",
    "speed-up": "time of the denoising loop, plain / accelerated: median of the timed pairs, (min to max, pairs)",
    "end to end": "the same for the whole call, with text encoder and decoder",
    "compute": "FLOPs of the accelerated denoising loop / of the plain one",
    "realised": "speed-up x compute: 1.00 = every skipped operation became saved time",
    "PSNR": "dB, mean over videos (10th percentile); higher = closer to the plain video",
    "SSIM": "structural similarity, mean over frames and videos; 1 = identical",
    "flicker": "mean absolute error of the frame-to-frame differences; lower = steadier",
    "key steps": "evaluations in which nothing was skipped / all: median (min to max over videos)",
    "cache": "peak bytes held for reuse, and in units of one hidden state",
}


def format_bytes(num_bytes: float) -> str:
    """Bytes in a readable decimal unit: `1.23 MB`."""
    exponent = 0
    while num_bytes >= BYTES_PER_UNIT and exponent < len(BYTE_UNITS) - 1:
        num_bytes /= BYTES_PER_UNIT
        exponent += 1
    return f"{num_bytes:.3g} {BYTE_UNITS[exponent]}"


def format_psnr(psnr: float | None) -> str:
    """Decibels with one decimal; `identical` for infinite."""
    if psnr is None:
        return MISSING
    return "identical" if math.isinf(psnr) else f"{psnr:.1f}"


def format_row(summary: Summary) -> dict[str, str]:
    """One cell of text for every heading of `HEADINGS`."""
    return {
        "method": summary.method,
        "speed-up": _format_ratio(summary.speedup),
        "end to end": _format_ratio(summary.end_to_end),
        "compute": _format_number(summary.compute_ratio, 3),
        "realised": _format_number(summary.realised, 2),
        "PSNR": _format_low(summary.psnr, summary.psnr_low, summary.num_videos),
        "SSIM": _format_number(summary.ssim, 4),
        "flicker": _format_number(summary.flicker_error, 4),
        "key steps": _format_key_steps(summary),
        "cache": _format_cache(summary),
    }


def to_markdown(summaries: Sequence[Summary]) -> str:
    """A markdown table, one line a method."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(format_row(summary).values()) + " |" for summary in summaries]
    return "\n".join(lines) + "\n"


def _format_number(value: float | None, num_decimals: int) -> str:
    return MISSING if value is None else f"{value:.{num_decimals}f}"


def _format_ratio(spread: Spread | None) -> str:
    if spread is None:
        return MISSING
    if spread.num == 1:
        return f"{spread.median:.2f}x (1 pair)"
    return f"{spread.median:.2f}x ({spread.min:.2f} to {spread.max:.2f}, {spread.num} pairs)"


def _format_low(mean: float | None, low: float | None, num_videos: int) -> str:
    if mean is None or low is None or num_videos == 1:
        return format_psnr(mean)
    return f"{format_psnr(mean)} ({format_psnr(low)})"


def _format_key_steps(summary: Summary) -> str:
    steps = summary.key_steps
    if steps is None:
        return MISSING
    spread = "" if steps.min == steps.max else f" ({steps.min:.0f} to {steps.max:.0f})"
    return f"{steps.median:g}/{summary.num_evaluations}{spread}"


def _format_cache(summary: Summary) -> str:
    if summary.cache_bytes is None:
        return MISSING
    hidden = "" if summary.hidden_states is None else f" ({summary.hidden_states:.2f} hidden)"
    return format_bytes(summary.cache_bytes) + hidden
