"""Quality rows: distances, failures kept, idle methods named, finished rows not made again."""

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest

from keystep.lab.book import Book
from keystep.lab.contestant import Contestant, Name
from keystep.lab.quality import measure_quality
from keystep.metrics.quality import compute_psnr
from tests.lab.rivals import BROKEN, IDLE, SKIPPING, STEPS, Silent, make_bench

ITEMS = [("a", 0), ("of", 1)]


def measure(folder, contestants, watcher=None, items=ITEMS, **options):
    book = Book(folder, {}, {})
    measure_quality(make_bench(), contestants, items, book, watcher or Silent(), **options)
    return book


def rows_of(book, method):
    return [row for row in book.rows if row.method == method]


def test_a_method_that_skips(tmp_path):
    book = measure(tmp_path, [SKIPPING])
    row = rows_of(book, "skipping")[1]
    assert (row.prompt, row.seed) == ITEMS[1]
    assert row.compute == 0.5
    assert row.key_steps == STEPS // 2
    assert row.reading == {"bright": True} or row.reading == {"bright": False}
    bench = make_bench()
    plain = bench.pipe(**bench.call("of", 1)).frames[0]
    with SKIPPING.attach(bench):
        video = bench.pipe(**bench.call("of", 1)).frames[0]
    assert row.to_plain.psnr == compute_psnr(video, plain)
    converged = bench.pipe(**bench.call("of", 1, 8 * STEPS)).frames[0]
    assert row.to_converged == compute_psnr(video, converged)
    assert not row.is_idle


def test_the_plain_row_comes_first_and_has_no_distance_to_itself(tmp_path):
    first = measure(tmp_path, [SKIPPING]).rows[0]
    assert (first.source, first.to_plain, first.compute) == ("plain", None, 1.0)
    assert first.to_converged is not None


def test_a_method_that_does_nothing_is_idle(tmp_path):
    row = rows_of(measure(tmp_path, [IDLE]), "idle")[0]
    assert row.is_idle
    assert math.isinf(row.to_plain.psnr)


def test_a_failure_is_a_row_with_its_message_and_is_not_tried_again(tmp_path):
    watcher = Silent()
    book = measure(tmp_path, [BROKEN, SKIPPING], watcher)
    (row,) = rows_of(book, "broken")
    assert row.error == "IndexError: tuple index out of range"
    assert len(rows_of(book, "skipping")) == 2


def test_a_rival_that_leaves_the_pipeline_changed_stops_the_bench(tmp_path):
    @contextmanager
    def vandalise(bench):
        bench.pipe.transformer.weight.data.mul_(2)
        raise KeyError("gone")
        yield

    with pytest.raises(RuntimeError, match="vandal .* left fake changed"):
        measure(tmp_path, [Contestant(Name("rival", "vandal", ""), vandalise)])


def test_an_interrupted_run_goes_on(tmp_path):
    measure(tmp_path, [SKIPPING, IDLE], Silent(limit=3))
    assert len(Book(tmp_path, {}, {}).rows) == 2
    watcher = Silent()
    book = measure(tmp_path, [SKIPPING, IDLE], watcher)
    assert len(book.rows) == 6
    assert sum("skipping" in label for label in watcher.labels) == 1  # the first item's was there
    again = Silent()
    measure(tmp_path, [SKIPPING, IDLE], again)
    assert again.labels == []


def test_videos_of_default_settings_are_shown(tmp_path):
    book = measure(tmp_path, [SKIPPING, replace(IDLE, is_default=False)], num_shown=1)
    shown = [row for row in book.rows if row.video]
    assert [row.method for row in shown] == ["plain", "skipping"]
    assert all((tmp_path / row.video).stat().st_size for row in shown)
