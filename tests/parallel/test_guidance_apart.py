"""Each guidance branch on ranks of its own: the video, and the decisions, of one rank."""

from __future__ import annotations

import pytest

from tests.parallel import guidance_work as work
from tests.parallel.launch import launch
from tests.parallel.test_parallel_equals import alone, check_equal

METHODS = ("plain", "adacache+moreg")


@pytest.mark.parametrize("name", ["latte", "cogvideox", "wan"])
def test_two_ranks_make_the_video_of_one(name):
    for every in launch(work.generate_apart, 2, name, METHODS, 1):
        for method, made in every.items():
            check_equal(made, alone(name, method))
