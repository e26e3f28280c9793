"""Summaries as rows of text, the same words on the terminal, in markdown and in the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from keystep.engine.summary import format_bytes
from keystep.metrics.outcome import Spread, Summary

MISSING = "–"

# heading -> what it means; the page shows the meaning beside the table.
HEADINGS = {
    "method": "what ran; every row is compared with the plain video of the same prompt and seed",
    "speed-up": "time of the denoising loop, plain / accelerated: median (least to most) of timed pairs",
    "end to end": "the same for the whole call, with text encoder and decoder",
    "compute": "FLOPs of the accelerated denoising loop / of the plain one",
    "realised": "speed-up x compute: 1.00 = every skipped operation became saved time",
    "PSNR": "dB, mean over videos (10th percentile); higher = closer to the plain video",
    "SSIM": "structural similarity, mean over frames and videos; 1 = identical",
    "flicker": "mean absolute error of the frame-to-frame differences; lower = steadier",
    "key steps": "evaluations in which nothing was skipped / all: median (min to max over videos)",
    "cache": "peak bytes held for reuse, and in units of one hidden state",
}


def format_psnr(psnr: float | None) -> str:
    """Decibels with one decimal; `identical` for infinite."""
    if psnr is None:
        return MISSING
    return "identical" if math.isinf(psnr) else f"{psnr:.1f}"


class Cell(NamedTuple):
    """A figure and, in small print, its spread or unit; `str` puts the latter in brackets."""

    main: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.main} ({self.detail})" if self.detail else self.main


def format_row(summary: Summary) -> dict[str, Cell]:
    """One cell for every heading of `HEADINGS`."""
    return {
        "method": Cell(summary.method),
        "speed-up": _format_ratio(summary.speedup),
        "end to end": _format_ratio(summary.end_to_end),
        "compute": _format_number(summary.compute_ratio, 3),
        "realised": _format_number(summary.realised, 2),
        "PSNR": _format_low(summary),
        "SSIM": _format_number(summary.ssim, 4),
        "flicker": _format_number(summary.flicker_error, 4),
        "key steps": _format_key_steps(summary),
        "cache": _format_cache(summary),
    }


def to_markdown(summaries: Sequence[Summary]) -> str:
    """A markdown table, one line a method."""
    lines = ["| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(map(str, format_row(summary).values())) + " |" for summary in summaries]
    return "\n".join(lines) + "\n"


def _format_number(value: float | None, num_decimals: int) -> Cell:
    return Cell(MISSING if value is None else f"{value:.{num_decimals}f}")


def _format_ratio(spread: Spread | None) -> Cell:
    if spread is None:
        return Cell(MISSING)
    main = f"{spread.median:.2f}x"
    if spread.num == 1:
        return Cell(main, "1 pair")
    return Cell(main, f"{spread.min:.2f} to {spread.max:.2f}, {spread.num} pairs")


def _format_low(summary: Summary) -> Cell:
    main, low = format_psnr(summary.psnr), format_psnr(summary.psnr_low)
    return Cell(main, "" if low == main or summary.num_videos == 1 else f"10 %: {low}")


def _format_key_steps(summary: Summary) -> Cell:
    steps = summary.key_steps
    if steps is None:
        return Cell(MISSING)
    spread = "" if steps.min == steps.max else f"{steps.min:.0f} to {steps.max:.0f}"
    return Cell(f"{steps.median:g}/{summary.num_evaluations}", spread)


def _format_cache(summary: Summary) -> Cell:
    if summary.cache_bytes is None:
        return Cell(MISSING)
    hidden = "" if summary.hidden_states is None else f"{summary.hidden_states:.2f} hidden states"
    return Cell(format_bytes(summary.cache_bytes), hidden)
