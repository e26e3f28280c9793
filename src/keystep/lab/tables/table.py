"""A table of text, its markdown, and what all tables share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from keystep.report.table import MISSING

Row = TypeVar("Row")
IDLE = "**idle**: nothing skipped, the plain video"


@dataclass(frozen=True)
class Table:
    """A heading, what it shows, and cells of text.

    Attributes:
        title: unique on the page.
        lead: one paragraph.
        headings: of the columns.
        rows: a cell for each heading.
    """

    title: str
    lead: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def to_markdown(tables: Iterable[Table]) -> str:
    """All tables, a heading each."""
    return "\n".join(map(_render, tables))


def _render(table: Table) -> str:
    lines = [_line(table.headings), "|---" * len(table.headings) + "|", *map(_line, table.rows)]
    return f"## {table.title}\n\n{table.lead}\n\n" + "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def group_by(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Rows by key, in the order in which keys appear."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def fill_failed(head: Iterable[str], error: str, num_headings: int) -> tuple[str, ...]:
    """The line of a contestant that raised."""
    cells = (*head, f"**fails**: {error}")
    return (*cells, *[""] * (num_headings - len(cells)))


def format_mean(values: Iterable[float], num_decimals: int) -> str:
    """The mean, or a dash for none."""
    known = list(values)
    return f"{sum(known) / len(known):.{num_decimals}f}" if known else MISSING
