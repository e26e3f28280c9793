"""The bench's results for people: markdown, plots and one page with the videos of the default settings."""

from __future__ import annotations

import json
from collections.abc import Sequence

from keystep.lab.book import Book
from keystep.lab.plots import MISSING_MATPLOTLIB, has_matplotlib, write_plots
from keystep.lab.rows import QualityRow
from keystep.lab.summary import summarize
from keystep.lab.tables import Table, make_tables, to_markdown
from keystep.media import write_text
from keystep.metrics.outcome import Outcome
from keystep.report import Clip, Group, Report, Section, write_report

TITLE = "keystep bench"
LEAD = (
    "Every method of keystep, the caches of diffusers and cache-dit, and fewer steps with better solvers:"
    " one process, the same pipelines, prompts and seeds. Failures are shown with their messages."
)
BOLD = "**"  # of markdown
SUMMARY = "summary.json"


def publish(book: Book, fps: float, notes: Sequence[str]) -> None:
    """Write results.md, summary.json, plots/ and report.html beside results.json.

    Args:
        book: what has been measured so far.
        fps: frames per second of the videos in the page.
        notes: remarks below the tables; a missing matplotlib adds its own.

    Raises:
        OSError: the place cannot be written.
    """
    tables, plots = make_tables(book.rows), {}
    if has_matplotlib():
        plots = write_plots(book.folder, book.rows)
    else:
        notes = [*notes, MISSING_MATPLOTLIB]
    facts = {**book.facts, **{name: str(value) for name, value in book.settings.items()}}
    about = "; ".join(f"{name}: {value}" for name, value in facts.items())
    pictures = "".join(f"![{title}]({path.relative_to(book.folder)})\n" for title, path in plots.items())
    remarks = "".join(f"- {note}\n" for note in notes)
    parts = (f"# {TITLE}", LEAD, about, remarks, pictures, to_markdown(tables))
    write_text(book.folder / "results.md", "\n\n".join(part.strip() for part in parts if part) + "\n")
    write_text(book.folder / SUMMARY, json.dumps(summarize(book.rows), indent=1) + "\n")
    sections = [Section(title, png=path.read_bytes()) for title, path in plots.items()]
    sections += [_to_section(table) for table in tables]
    report = Report(TITLE, LEAD, facts, [], _group_videos(book), fps, list(notes), sections)
    write_report(book.folder / "report.html", report)


def _to_section(table: Table) -> Section:
    rows = tuple(tuple(cell.replace(BOLD, "") for cell in row) for row in table.rows)
    return Section(table.title, table.lead, table.headings, rows)


def _group_videos(book: Book) -> list[Group]:
    groups: dict[tuple[str, str, int], list[Clip]] = {}
    for row in book.rows:
        if isinstance(row, QualityRow) and row.video:
            clip = Clip(str(row.contestant), (book.folder / row.video).read_bytes(), _to_outcome(row))
            groups.setdefault((row.model, row.prompt, row.seed), []).append(clip)
    return [
        Group(f"{model}: {prompt}", seed, tuple(clips)) for (model, prompt, seed), clips in groups.items()
    ]


def _to_outcome(row: QualityRow) -> Outcome:
    return Outcome(
        prompt=row.prompt,
        seed=row.seed,
        method=str(row.contestant),
        quality=row.to_plain,
        flops=row.flops,
        plain_flops=row.plain_flops,
        uncounted=row.uncounted,
        pairs=(),
        trace=None,
        video=row.video,
    )
