"""Several ranks make the video that one makes, and decide as one does."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.parallel.launch import launch
from tests.parallel.work import GUIDED, Made, generate, generate_families, generate_together, zoo_named
from tests.zoo import STEPS

TOLERANCE = 1e-5  # of the largest latent; sums come in another order
MODELS = ("opensora", "latte", "cogvideox", "wan")
OTHERS = {
    "vchitect": "fastercache",
    "opensora-plan": "adacache+moreg",
    "cogvideox5b": "adacache+moreg",
    "cogvideox15": "adacache+moreg",
    "wan22": "fastercache",
}
METHODS = {"plain": {"steps": 3}, "fastercache": {"steps": STEPS}, "adacache+moreg": {"steps": STEPS}}


@functools.cache
def alone(name: str, method: str, **arguments: Any) -> Made:
    zoo = zoo_named(name)
    return generate(zoo, zoo.build(), method, **arguments)


def check_equal(made: Made, wanted: Made) -> None:
    error = (made.latents - wanted.latents).abs().max() / wanted.latents.abs().max()
    assert error < TOLERANCE
    assert made.decisions == wanted.decisions
    for row, wanted_row in zip(made.signals, wanted.signals, strict=True):
        assert row == pytest.approx(wanted_row, rel=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("size", (1, 2, 4))
def test_ranks_make_the_video_of_one(name: str, size: int) -> None:
    for every in launch(generate_together, size, name, METHODS):
        for method, arguments in METHODS.items():
            check_equal(every[method], alone(name, method, **arguments))
        check_skipped(every, size)


def check_skipped(every: dict[str, Made], size: int) -> None:
    """What is skipped is not sent; and something is skipped, or these tests say little."""
    sent = {method: made.traffic for method, made in every.items()}
    steps = METHODS["plain"]["steps"]
    for method in ("fastercache", "adacache+moreg"):
        assert all("s" in line for line in every[method].decisions.values())
        if size > 1:
            number = sent[method].collectives["all_to_all"]
            assert 0 < number * steps < sent["plain"].collectives["all_to_all"] * STEPS
            assert 0 < sent[method].num_bytes * steps < sent["plain"].num_bytes * STEPS


@pytest.mark.parametrize("name", ("latte", "wan"))
def test_guided_output(name: str) -> None:
    """`auto` by a budget and by a tolerance: nothing of it is inside the model that the ranks share."""
    for every in launch(generate_together, 2, name, {method: {} for method in GUIDED}):
        for method in GUIDED:
            check_equal(every[method], alone(name, method))
            assert "s" in every[method].decisions["guided"]


@pytest.mark.parametrize("name", OTHERS)
def test_counts_that_do_not_divide(name: str) -> None:
    """2 heads, 16 tokens of a frame and 7 of the text, on 3 ranks; two samples a batch."""
    method, arguments = OTHERS[name], {"batch": 2}
    for every in launch(generate_together, 3, name, {method: arguments}):
        check_equal(every[method], alone(name, method, **arguments))


def test_bytes_are_those_of_the_tensors() -> None:
    """Latte on 2 ranks: 8 of the 16 tokens of a frame each, 16 channels, 6 rows, 4 spatial blocks."""
    steps, rows, channels, blocks = 5, 6, 16, 4
    for rank, every in enumerate(launch(generate_together, 2, "latte", {"plain": {"steps": steps}})):
        traffic = every["plain"].traffic
        there = back = rows // 2 * 8 * channels * 4
        gathered = rows * 8 * 32 * 4
        latent = 2 * 4 * 3 * 8 * 8 * 4
        from_first = (
            2 * latent // 2 + latent if rank == 0 else 0
        )  # what the step returns, what the model takes
        assert traffic.num_bytes == steps * (blocks * (there + back) + gathered + from_first)
        assert traffic.collectives["all_to_all"] == steps * blocks * 2


def test_other_families() -> None:
    """Masks over text and video, timesteps for every token, a first frame that is given; on 3 ranks."""
    names = ("wan-i2v", "wan-tokens", "chronoedit", "hunyuan", "hunyuan-i2v-replace", "ltx-i2v")
    for every in launch(generate_families, 3, names):
        assert set(every) == set(names)
        for alone, together in every.values():
            assert (together - alone).abs().max() < TOLERANCE * alone.abs().max()
