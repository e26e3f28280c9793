"""`python -m tests.capability [NAME ...]`: measure the matrix and write docs/capability.md.

Without names everything is measured; with names of methods or models those, and what is missing. Cells are
kept in build/capability.json as they come: a run that was stopped goes on there.
"""

from __future__ import annotations

import sys
import time

import torch
from diffusers.utils import logging

from keystep.errors import unknown
from tests.capability import page, store
from tests.capability.cell import Cell, measure
from tests.capability.subjects import NAMES, SUBJECTS

PARTIAL = store.PAGE.parents[1] / "build" / "capability.json"


def main(named: list[str]) -> None:
    """Measure what is missing, then write the page."""
    for name in named:
        if name not in (*SUBJECTS, *NAMES):
            raise SystemExit(str(unknown("method or model", name, (*SUBJECTS, *NAMES))))
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    done = store.read(PARTIAL) or kept(named)
    begin = time.perf_counter()
    for i, model in enumerate(SUBJECTS):
        row = done.setdefault(model, {})
        for name in NAMES:
            if name not in row:
                row[name] = measure(model, name)
                store.write(PARTIAL, done)
        passed = time.perf_counter() - begin
        print(f"{i + 1}/{len(SUBJECTS)} {model}: {len(row)} methods, {passed:.0f} s so far", file=sys.stderr)
    cells = {model: {name: done[model][name] for name in NAMES} for model in SUBJECTS}
    store.write(store.CELLS, cells)
    store.PAGE.write_text(page.render(cells))
    PARTIAL.unlink(missing_ok=True)
    print(f"{store.PAGE}: {page.count_answers(cells)}")


def kept(named: list[str]) -> dict[str, dict[str, Cell]]:
    """Cells that are not measured anew."""
    if not named:
        return {}
    return {
        model: {name: cell for name, cell in row.items() if name not in named}
        for model, row in store.read(store.CELLS).items()
        if model not in named
    }


main(sys.argv[1:])
