"""Cells in files: all of them in `cells.json`, which the page is made of."""

from __future__ import annotations

import json
from pathlib import Path

from tests.capability.cell import Cell

CELLS = Path(__file__).with_name("cells.json")
PAGE = Path(__file__).parents[2] / "docs" / "capability.md"


def read(path: Path) -> dict[str, dict[str, Cell]]:
    """Cells by model and method; none if there is no file."""
    if not path.exists():
        return {}
    return {
        model: {name: Cell(**values) for name, values in row.items()}
        for model, row in json.loads(path.read_text()).items()
    }


def write(path: Path, cells: dict[str, dict[str, Cell]]) -> None:
    """One line a cell."""
    models = [
        f"{json.dumps(model)}: {{\n"
        + ",\n".join(f" {json.dumps(name)}: {json.dumps(vars(cell))}" for name, cell in row.items())
        + "\n}"
        for model, row in cells.items()
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(models) + "\n}\n")
