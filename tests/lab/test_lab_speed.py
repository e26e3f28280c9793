"""Speed rows: pairs in turns, ratios of neighbours, failures kept."""

import pytest

from keystep.lab import speed
from keystep.lab.book import Book
from keystep.lab.sample import Timed
from tests.lab.rivals import BROKEN, IDLE, SKIPPING, STEPS, Silent, make_bench


@pytest.fixture
def clock(monkeypatch):
    """Plain loops take 4 s, others 1 s; keeps who was timed, in order."""
    order = []
    monkeypatch.setattr(speed, "measure_hidden_state", lambda bench: 100)

    def take(pipe, arguments):
        is_plain = "forward" not in vars(pipe.transformer)
        order.append("plain" if is_plain else "own")
        return Timed(4.0, 5.0, 4.0, 0) if is_plain else Timed(1.0, 2.0, 1.5, 0)

    monkeypatch.setattr(speed, "take_time", take)
    return order


def test_pairs_alternate_and_ratios_are_of_neighbours(tmp_path, clock):
    book = Book(tmp_path, {}, {})
    speed.measure_speed(make_bench(), [SKIPPING], 3, book, Silent())
    (row,) = book.rows
    assert clock == ["plain", "own", "own", "plain", "plain", "own"]
    assert row.speedups == [4.0] * 3
    assert row.realised == 4.0 * row.compute == 2.0
    assert row.cpu_pairs == ((4.0, 1.5),) * 3
    assert (row.num_plain_steps, row.key_steps) == (STEPS, STEPS // 2)
    assert not row.is_idle


def test_failures_and_idle_methods_are_rows(tmp_path, clock):
    book = Book(tmp_path, {}, {})
    speed.measure_speed(make_bench(), [BROKEN, IDLE], 1, book, Silent())
    broken, idle = book.rows
    assert broken.error.startswith("IndexError")
    assert broken.pairs == ()
    assert idle.is_idle


def test_what_is_measured_is_not_measured_again(tmp_path, clock):
    speed.measure_speed(make_bench(), [IDLE], 1, Book(tmp_path, {}, {}), Silent())
    watcher = Silent()
    speed.measure_speed(make_bench(), [IDLE], 1, Book(tmp_path, {}, {}), watcher)
    assert watcher.labels == []
