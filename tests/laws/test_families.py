"""The laws, in short, on every other family of diffusers: a generation of each kind on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import keystep
from keystep import AdaCache, FasterCache, MoReg
from keystep.methods.dbcache import DBCache
from keystep.methods.easycache import EasyCache
from keystep.methods.fbcache import FBCache
from keystep.methods.pab import PAB
from keystep.methods.taylorseer import TaylorSeer
from keystep.methods.teacache import TeaCache
from tests.families import audio, batched, hunyuan_like, separate, wan_like
from tests.families.parts import STEPS, Family
from tests.laws.instruments import differences, snapshot, transformers
from tests.matrix import NEVER

# diffusers' own, on this machine: float32 autocast on a CPU (Mochi), numpy 2 (LTX, Allegro, Helios)
pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
FAMILIES = (
    *wan_like.FAMILIES,
    *hunyuan_like.FAMILIES,
    *batched.FAMILIES,
    *separate.FAMILIES,
    *audio.FAMILIES,
)
# Constants that really skip on random weights; the first two everywhere, the others dealt out.
METHODS: dict[str, Any] = {
    "fastercache": FasterCache(),
    "adacache+moreg": AdaCache(
        {0.5: 4, 9.0: 2}, otherwise=2, native=STEPS, moreg=MoReg(exponent=1.0, gradient=1.0)
    ),
    "teacache": TeaCache(2.0, "plain"),
    "fbcache": FBCache(9.0),
    "dbcache+cfg": DBCache(1, threshold=9.0, warmup=3, order=1, cfg=True),
    "taylorseer": TaylorSeer(interval=3),
    "easycache": EasyCache(9.0),
    "pab": PAB("default"),
}
EVERYWHERE = 2
STILL = AdaCache({9.0: 2}, otherwise=2, native=STEPS)  # in the place of one that measures motion


def family_params() -> list[Any]:
    return [pytest.param(family, id=family.name) for family in FAMILIES]


def pairs() -> list[Any]:
    names = list(METHODS)
    dealt = names[EVERYWHERE:]
    return [
        pytest.param(family, name, id=f"{family.name}-{name}")
        for i, family in enumerate(FAMILIES)
        for name in (*names[:EVERYWHERE], dealt[i % len(dealt)])
    ]


def method_of(family: Family, name: str) -> Any:
    return STILL if name == "adacache+moreg" and not family.has_motion else METHODS[name]


@cache
def pipe_of(family: Family) -> Any:
    return family.build()


@cache
def plain(family: Family, is_guided: bool = True) -> tuple[torch.Tensor, int]:
    """Latents of the plain pipeline, and how much its blocks did for them."""
    with work(pipe_of(family)) as done:
        latents = family.sample(pipe_of(family), is_guided=is_guided)
    assert latents.isfinite().all()
    return latents, done[0]


@contextmanager
def work(pipe: Any) -> Iterator[list[int]]:
    """Counts what comes out of the linear layers inside the block lists."""
    done = [0]

    def count(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        done[0] += output.numel()

    lists = [
        part
        for model in transformers(pipe).values()
        for part in model.modules()
        if type(part) is nn.ModuleList
    ]
    layers = {layer for blocks in lists for layer in blocks.modules() if isinstance(layer, nn.Linear)}
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield done
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("is_guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("family", family_params())
def test_a_policy_that_never_skips_changes_nothing(family: Family, is_guided: bool) -> None:
    expected, _ = plain(family, is_guided)
    before = snapshot(pipe_of(family))
    with keystep.accelerate(pipe_of(family), NEVER["always"]) as session:
        latents = family.sample(pipe_of(family), is_guided=is_guided)
    assert torch.equal(latents, expected)
    assert session.trace.is_complete and session.trace.guided is is_guided
    assert {"cond", "uncond"} & set(session.trace.rows[0].branches) == (
        {"cond", "uncond"} if is_guided else {"cond"}
    )
    assert differences(before, snapshot(pipe_of(family))) == []


@pytest.mark.parametrize(("family", "name"), pairs())
def test_methods_skip_and_repeat(family: Family, name: str) -> None:
    latents, all_of_it = plain(family)
    with keystep.accelerate(pipe_of(family), method_of(family, name)) as session:
        with work(pipe_of(family)) as done:
            first = family.sample(pipe_of(family))
        assert any(row.skipped for row in session.trace.rows)
        assert done[0] < all_of_it
        assert first.isfinite().all() and not torch.equal(first, latents)
        assert torch.equal(family.sample(pipe_of(family)), first), "the second generation is another"


class Stop(Exception):
    pass


@pytest.mark.parametrize("family", family_params())
def test_two_prompts_and_an_exception(family: Family) -> None:
    pipe, calls = pipe_of(family), []

    def stop(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 9:
            raise Stop

    with keystep.accelerate(pipe, method_of(family, "adacache+moreg")) as session:
        latents = family.sample(pipe, batch=family.max_batch)
        assert latents.isfinite().all() and any(row.skipped for row in session.trace.rows)
        handle = pipe.transformer.register_forward_pre_hook(stop)
        with pytest.raises(Stop):
            family.sample(pipe)
        handle.remove()
        assert session.run is None
    assert torch.equal(family.sample(pipe), plain(family)[0])
