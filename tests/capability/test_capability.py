"""What docs/capability.md says still holds: some cells measured again, others for each CAPABILITY_SEED."""

from __future__ import annotations

import os

import pytest

from tests.capability import page, store
from tests.capability.cell import COLUMNS, YES, measure
from tests.capability.subjects import NAMES, SUBJECTS, sample_of_pairs
from tests.laws import test_families as families

# diffusers' own warnings, as for the families
pytestmark = families.pytestmark
SEED = int(os.environ.get("CAPABILITY_SEED", "0"))
REMAKE = "make it anew with `python -m tests.capability`"
TOLERANCE = 0.1  # of the part left out: decisions by thresholds may fall otherwise on another machine


def test_the_page_shows_the_cells_there_are() -> None:
    cells = store.read(store.CELLS)
    assert list(cells) == list(SUBJECTS), REMAKE
    assert all(tuple(row) == NAMES for row in cells.values()), REMAKE
    assert store.PAGE.read_text() == page.render(cells), REMAKE


def test_nothing_is_skipped_or_spoilt_in_silence() -> None:
    """A refusal has a message and a skip that is not possible a reason; no cell has a plain no."""
    for model, row in store.read(store.CELLS).items():
        for name, cell in row.items():
            wrong = {column: remark for column, remark in cell.remarks.items() if remark.startswith("no:")}
            assert not wrong, f"{name} on {model}"


@pytest.mark.parametrize(("model", "name"), list(sample_of_pairs(SEED)))
def test_cell(model: str, name: str) -> None:
    found, written = measure(model, name), store.read(store.CELLS)[model][name]
    assert found.remarks == written.remarks, REMAKE
    assert found.skipped == pytest.approx(written.skipped, abs=TOLERANCE), REMAKE
    assert set(found.remarks) <= set(COLUMNS)
    assert found.answer("skips") != YES or found.skipped > 0


def test_samples_go_through_all_pairs() -> None:
    samples = [set(sample_of_pairs(seed)) for seed in range(len(SUBJECTS))]
    for pairs in samples:
        assert {model for model, _ in pairs} == set(SUBJECTS)
        assert {name for _, name in pairs} == set(NAMES)
    assert set().union(*samples) == {(model, name) for model in SUBJECTS for name in NAMES}
