"""Speed rows: pairs, their ratios, failures kept."""

import pytest

from keystep.lab import speed
from keystep.lab.book import Book
from keystep.lab.lockstep import Timed
from tests.lab.rivals import BROKEN, IDLE, SKIPPING, STEPS, Silent, make_bench


@pytest.fixture
def clock(monkeypatch):
    """Plain loops take 4 s, others 1 s; keeps who began."""
    order = []
    monkeypatch.setattr(speed, "measure_hidden_state", lambda bench: 100)

    def take(own, plain, is_second_ahead):
        assert "forward" not in vars(plain.pipe.transformer)
        order.append("plain" if is_second_ahead else "own")
        return Timed(1.0, 2.0, 1.5), Timed(4.0, 5.0, 4.0)

    monkeypatch.setattr(speed, "time_together", take)
    return order


def test_who_begins_alternates_and_ratios_are_of_pairs(tmp_path, clock):
    book = Book(tmp_path, {}, {})
    speed.measure_speed(make_bench(), [SKIPPING], 3, book, Silent())
    (row,) = book.rows
    assert clock == ["plain", "own", "plain"]
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
