"""Results on disk: whole after every row, read back exactly, refused where they do not belong."""

import json
import math

import pytest

from keystep.lab.book import RESULTS, Book
from keystep.lab.rows import QualityRow, RobustnessRow, SpeedRow
from keystep.metrics.outcome import TimedPair
from keystep.metrics.quality import Quality

WHO = {"model": "m", "source": "s", "method": "x", "setting": "y", "is_default": True}
ROWS = [
    QualityRow(part="quality", **WHO, prompt="p", seed=3, to_plain=Quality(math.inf, 1.0, 0.0, (math.inf,))),
    SpeedRow(part="speed", **WHO, pairs=(TimedPair(2.0, 1.0, 3.0, 2.0),), cpu_pairs=((2.0, 1.0),)),
    RobustnessRow(part="robustness", **WHO, checks={"restored": "ok"}),
    RobustnessRow(part="robustness", **{**WHO, "method": "z"}, error="IndexError: gone"),
]


def test_rows_come_back_as_they_were(tmp_path):
    book = Book(tmp_path, {"seeds": (0, 1)}, {"date": "then"})
    for row in ROWS:
        book.add(row)
    again = Book(tmp_path, {"seeds": (0, 1)}, {"date": "now"})
    assert again.rows == ROWS
    assert all(again.has(row.key) for row in ROWS)
    again.add(ROWS[0])
    data = json.loads((tmp_path / RESULTS).read_text())
    assert [run["date"] for run in data["runs"]] == ["then", "now"]
    assert len(data["rows"]) == len(ROWS)


def test_an_interrupt_while_writing_leaves_the_last_whole_file(tmp_path, monkeypatch):
    book = Book(tmp_path, {}, {})
    book.add(ROWS[0])

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("keystep.media.files.os.replace", fail)
        book.add(ROWS[1])
    assert Book(tmp_path, {}, {}).rows == ROWS[:1]


def test_other_settings_need_another_folder(tmp_path):
    Book(tmp_path, {"steps": 30}, {}).add(ROWS[0])
    with pytest.raises(ValueError, match="steps = 30, given now: 20"):
        Book(tmp_path, {"steps": 20}, {})


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": [{"part": "beauty"}], "settings": {}, "runs": []}'])
def test_a_foreign_file_is_refused(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(ValueError, match="unreadable"):
        Book(tmp_path, {}, {})
