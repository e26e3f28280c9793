"""The Markdown page made of all cells."""

from __future__ import annotations

from collections.abc import Mapping

from tests.capability.cell import COLUMNS, YES, Cell
from tests.capability.subjects import CFG, STEPS

Cells = Mapping[str, Mapping[str, Cell]]  # by model, by method


def render(cells: Cells) -> str:
    """The page, remarks as numbered notes below the table."""
    notes = collect_notes(cells)
    methods = list(next(iter(cells.values())))
    with_cfg = [name for name in methods if name.endswith(CFG)]
    return "\n".join(
        [
            "# What works with what",
            "",
            "Made by `python -m tests.capability`, which runs every method on every model, tiny ones with",
            f"random weights, {STEPS} evaluations long; the tests measure a part of it again and compare.",
            "Rows are pipelines of diffusers and of keystep, `wan-tokens` one with a timestep for each",
            "token. What is asked:",
            "",
            *(f"- **{column}**: {question}" for column, question in COLUMNS.items()),
            "",
            count_answers(cells),
            "",
            "A percentage is the part of the operations that was left out. It belongs to the constants of",
            "the tests, chosen so that a short run skips, and to nobody's released model. Without a number",
            "in brackets, which is a note below, every answer is yes.",
            "",
            *table([name for name in methods if name not in with_cfg], cells, notes),
            "",
            "Beside CFG-Cache:",
            "",
            *table(with_cfg, cells, notes),
            *(["", "## Notes", ""] if notes else []),
            *(f"{number}. {note}" for note, number in notes.items()),
            "",
        ]
    )


def collect_notes(cells: Cells) -> dict[str, int]:
    """Every different remark and its number."""
    notes: dict[str, int] = {}
    for row_of_model in cells.values():
        for cell in row_of_model.values():
            for note in notes_of(cell):
                notes.setdefault(note, len(notes) + 1)
    return notes


def notes_of(cell: Cell) -> list[str]:
    """Remarks with the columns they belong to; columns with one remark share a note."""
    columns: dict[str, list[str]] = {}
    for column, remark in cell.remarks.items():
        columns.setdefault(remark, []).append(column)
    return [
        remark if len(named) == len(COLUMNS) else f"{', '.join(named)}: {remark}"
        for remark, named in columns.items()
    ]


def table(methods: list[str], cells: Cells, notes: dict[str, int]) -> list[str]:
    """A row for each model."""
    rows = [[model, *(show(of_model[name], notes) for name in methods)] for model, of_model in cells.items()]
    head = ["model", *(name.removesuffix(CFG) for name in methods)]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def show(cell: Cell, notes: dict[str, int]) -> str:
    """One cell of the table."""
    marks = "".join(f" [{notes[note]}]" for note in notes_of(cell))
    return f"{cell.skipped:.0%}{marks}" if cell.answer("runs") == YES else f"refused{marks}"


def count_answers(cells: Cells) -> str:
    """How many cells answer every question with yes, and how many have answers of other kinds."""
    found = [cell for of_model in cells.values() for cell in of_model.values()]

    def count(kind: str) -> int:
        return sum(any(remark.startswith(kind) for remark in cell.remarks.values()) for cell in found)

    return (
        f"Of {len(found)} pairs {sum(not cell.remarks for cell in found)} answer every question with yes. In "
        f"{count('n/a:')} a question does not apply, in {count('warned:')} a warning says that nothing was "
        f"skipped, {count('refused:')} are refused with a message that says what to do, and {count('no:')} "
        "have an answer that is no."
    )
