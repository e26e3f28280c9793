"""What `keystep batch` shows: a bar while it runs, tables when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from keystep.batch import Item, Manifest, Record
from keystep.batch.manifest import FAILED, MANIFEST
from keystep.cli.console import err_console, out_console, print_path, print_table
from keystep.engine.summary import format_bytes

HEADINGS = ("method", "items", "s in the loop", "s a call", "key steps", "cache")
MAX_FAILURES = 20  # lines of the table; the file has all


@dataclass
class Tally:
    """How many items were finished before, are finished now, and failed once but were tried again."""

    num_before: int
    num_made: int = 0
    num_retries: int = 0


class BatchProgress:
    """Context manager with a bar for the items; keeps the tally.

    Args:
        num_items: of the whole batch, finished ones included.
        tally: to be kept.
    """

    def __init__(self, num_items: int, tally: Tally) -> None:
        self._console = err_console()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,  # a log file wants no bars
            transient=True,
        )  # fmt: skip
        self._tally = tally
        self._task = self._bar.add_task("items", total=num_items, completed=tally.num_before)

    def on_finished(self, record: Record) -> None:
        """As `Watcher.on_finished`."""
        del record
        self._tally.num_made += 1
        self._bar.advance(self._task)

    def on_retry(self, item: Item, reason: str) -> None:
        """As `Watcher.on_retry`."""
        self._tally.num_retries += 1
        self._say(f"{item.id}: {reason}; it is tried again")

    def on_set_aside(self, item: Item, error: str) -> None:
        """As `Watcher.on_set_aside`."""
        self._bar.advance(self._task)
        self._say(f"{item.id}: {error}; it is set aside")

    def on_loss(self, worker: int, reason: str) -> None:
        """As `Watcher.on_loss`."""
        self._say(f"worker {worker}: {reason}; another is started")

    def _say(self, text: str) -> None:
        self._bar.console.print(f"[bold yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    def __enter__(self) -> BatchProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def print_report(manifest: Manifest, records: Sequence[Record], tally: Tally, wall_s: float) -> None:
    """Tables of what is finished and what is not.

    Args:
        manifest: of the batch.
        records: all that is finished of what was asked for.
        tally: of this run.
        wall_s: seconds it took, with loading.
    """
    methods = list(dict.fromkeys(record.method for record in records))
    rows = [_describe(method, [r for r in records if r.method == method]) for method in methods]
    if rows:
        print_table(HEADINGS, rows)
    failures = manifest.failures
    if failures:
        shown = [map(escape, _name_failure(failure)) for failure in failures[:MAX_FAILURES]]
        print_table(("set aside", "tries", "error"), [list(cells) for cells in shown])
    rate = f", {tally.num_made / wall_s * 3600:.0f} videos an hour" if tally.num_made else ""
    out_console().print(
        f"{len(records)} finished: {tally.num_made} now in {wall_s:.1f} s{rate}, {tally.num_before} before; "
        f"{tally.num_retries} tried again, {len(failures)} set aside",
        markup=False, highlight=False,
    )  # fmt: skip
    for note, count in Counter(note for record in records for note in record.notes).most_common():
        out_console().print(f"note, of {count} of {len(records)}: {note}", markup=False, highlight=False)
    print_path("manifest", manifest.folder / MANIFEST)
    if failures:
        print_path("set aside", manifest.folder / FAILED)


def _describe(method: str, records: Sequence[Record]) -> list[str]:
    steps = [len(record.key_steps) for record in records if record.key_steps is not None]
    planned = {record.num_evaluations for record in records if record.num_evaluations is not None}
    of = f"/{planned.pop()}" if len(planned) == 1 else ""
    return [
        escape(method),
        str(len(records)),
        _spread([record.loop_s for record in records]),
        _spread([record.total_s for record in records]),
        f"{median(steps):g}{of} ({min(steps)} to {max(steps)})" if steps else "all",
        format_bytes(max(record.peak_cache_bytes for record in records)),
    ]


def _name_failure(failure: Mapping[str, Any]) -> tuple[str, str, str]:
    name = failure["id"] if "id" in failure else f"line {failure['line']}"
    return name, str(failure.get("tries", "")), failure["error"]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
