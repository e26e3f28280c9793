"""Where the command line prints: results to stdout, progress and errors to stderr."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from keystep.metrics.outcome import Summary

WIDTH_OF_FILES = 160  # columns, where the output is no terminal and tells no width
TERMINAL_COLUMNS = (
    "method",
    "speed-up",
    "compute",
    "PSNR",
    "SSIM",
    "key steps",
    "cache",
)  # fit 80 characters


def out_console() -> Console:
    """Console for results."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_OF_FILES)


def err_console() -> Console:
    """Console for progress and errors."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH_OF_FILES)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """Print rows under headings; cells are text or anything rich can draw."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    out_console().print(table)


def print_summaries(summaries: Sequence[Summary]) -> None:
    """Print what was measured, a line a method, spreads in small print below the figures."""
    from keystep.report import format_row

    table = Table(title="against the plain video of the same prompt and seed", title_justify="left")
    for heading in TERMINAL_COLUMNS:
        table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
    for summary in summaries:
        cells = format_row(summary)
        table.add_row(*(_stack(*cells[heading]) for heading in TERMINAL_COLUMNS))
    out_console().print(table)


def _stack(main: str, detail: str) -> Text:
    return Text.assemble(main, ("\n" + detail, "dim")) if detail else Text(main)


def print_path(what: str, path: Path) -> None:
    """Say where something was written."""
    out_console().print(f"{what} {path}", markup=False, highlight=False, soft_wrap=True)
