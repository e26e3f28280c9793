"""Every check finds what it is there for, and passes the plain pipeline."""

from contextlib import contextmanager

import pytest
import torch

from keystep.lab.book import Book
from keystep.lab.contestant import Contestant, Name
from keystep.lab.robustness import CHECKS, OK, measure_robustness, merge
from tests.lab.rivals import BROKEN, LEAKING, SKIPPING, Silent, contestant, make_bench


def check(folder, *contestants):
    book = Book(folder, {}, {})
    measure_robustness(make_bench(), contestants, book, Silent())
    return book.rows


def test_the_plain_pipeline_passes(tmp_path):
    (row,) = check(tmp_path)
    assert row.checks == dict.fromkeys(CHECKS, OK)
    assert row.compute == 1


def test_state_that_outlives_a_video_is_found(tmp_path):
    row = check(tmp_path, LEAKING)[1]
    assert row.checks["second video"].startswith("differs by")
    assert row.checks["restored"] == OK


def test_state_that_outlives_an_exception_is_found(tmp_path):
    # counts calls, so an even number of whole videos does it no harm
    row = check(tmp_path, SKIPPING)[1]
    assert row.checks["second video"] == OK
    assert row.checks["after an exception"].startswith("differs by")
    assert row.compute == 0.5


def test_a_change_that_stays_is_found(tmp_path):
    @contextmanager
    def stay(bench):
        bench.pipe.transformer.weight.data.mul_(1.01)
        yield

    row = check(tmp_path, Contestant(Name("rival", "staying", ""), stay))[1]
    assert row.checks["restored"].startswith("differs by")


def test_numbers_that_are_none_are_found(tmp_path):
    def spoil(original, state):
        def forward(x):
            state["calls"] += 1
            return original(x) * (float("nan") if state["calls"] > 8 else 1)

        return forward

    row = check(tmp_path, contestant("spoiling", spoil))[1]
    assert row.checks["second video"] == "not finite"


def test_a_method_that_fails_at_once_is_a_row(tmp_path):
    row = check(tmp_path, BROKEN)[1]
    assert row.error == "IndexError: tuple index out of range"
    assert row.checks is None


def test_merging_two_calls():
    one, two = ({"latents": torch.full((1, 2), value), "prompt": value, "steps": 4} for value in (1.0, 2.0))
    merged = merge(
        {**one, "prompt": "a", "negative_prompt": None}, {**two, "prompt": "b", "negative_prompt": None}
    )
    assert merged["latents"].tolist() == [[1, 1], [2, 2]]
    assert merged["prompt"] == ["a", "b"]
    assert merged["steps"] == 4
    assert merged["negative_prompt"] is None


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_says_what_it_means(name):
    assert len(CHECKS[name].split()) > 4
