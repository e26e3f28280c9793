"""What the processes of a test do."""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler
from torch.distributed.distributed_c10d import _get_default_store

import keystep
from keystep.methods import Auto
from keystep.models.toy.pipeline import ToyPipeline
from keystep.ranks.group import Traffic
from tests.families import batched, hunyuan_like, wan_like
from tests.laws.instruments import differences, may_warn, snapshot
from tests.matrix import METHODS, decisions
from tests.zoo import COGVIDEOX, STEPS, ZOO, Zoo

# Methods on the guided output, beside those inside the model.
GUIDED = {"auto": Auto(speedup=2.0), "auto by tolerance": Auto(tolerance=0.2)}
FAMILIES = (*wan_like.FAMILIES, *hunyuan_like.FAMILIES, *batched.FAMILIES)


@dataclass
class Made:
    """One generation, and what it took."""

    latents: torch.Tensor
    decisions: dict[str, str]
    signals: list[dict[str, float]]
    traffic: Traffic | None = None


def zoo_named(name: str) -> Zoo:
    return next(zoo for zoo in ZOO if zoo.name == name)


@contextlib.contextmanager
def accelerated(pipe: Any, method: str) -> Iterator[Any]:
    """Accelerate, unless the method is "plain"."""
    if method == "plain":
        yield None
    else:
        with may_warn(), keystep.accelerate(pipe, (METHODS | GUIDED)[method]) as session:
            yield session


def generate(zoo: Zoo, pipe: Any, method: str, **arguments: Any) -> Made:
    """One generation in this process, or together with others that share the pipeline."""
    with accelerated(pipe, method) as session:
        latents = zoo.sample(pipe, **arguments)
    if session is None:
        return Made(latents, {}, [])
    return Made(latents, decisions(session.trace), [row.signals for row in session.trace.rows])


def generate_together(rank: int, name: str, methods: dict[str, dict[str, Any]]) -> dict[str, Made]:
    """A generation with each method and its arguments, shared by all ranks; decisions are compared."""
    zoo = zoo_named(name)
    pipe, made = zoo.build(), {}
    for method, arguments in methods.items():
        with keystep.parallel(pipe, check=True) as shared:
            made[method] = generate(zoo, pipe, method, **arguments)
            made[method].traffic = shared.traffic
    return made


PAIRS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {"steps": 3, "seed": 1}),
    ("adacache+moreg", {"steps": 16, "seed": 2}),
)


def generate_apart(rank: int) -> torch.Tensor:
    """Two pairs of ranks, each with a video, a method and a number of steps of its own."""
    zoo = zoo_named("latte")
    pipe = zoo.build()
    method, arguments = PAIRS[rank // 2]
    with keystep.parallel(pipe, ulysses=2):
        return generate(zoo, pipe, method, **arguments).latents


def stochastic_cogvideox() -> Any:
    pipe = COGVIDEOX.build()
    pipe.scheduler = CogVideoXDPMScheduler.from_config(pipe.scheduler.config)
    return pipe


@torch.no_grad()
def draw(pipe: Any, seed: int) -> torch.Tensor:
    """A video from noise that nobody was given: of torch's own generator, at every step anew."""
    torch.manual_seed(seed)
    arguments = COGVIDEOX.arguments(steps=6) | {"latents": None, "generator": None}
    return pipe(**arguments).frames


def draw_apart(rank: int) -> torch.Tensor:
    """Every rank draws other noise."""
    pipe = stochastic_cogvideox()
    with keystep.parallel(pipe):
        return draw(pipe, seed=rank)


def used(zoo: Zoo) -> Any:
    """A pipeline that has been called: the first call leaves things of diffusers' own."""
    pipe = zoo.build()
    zoo.sample(pipe, steps=2)
    return pipe


def message_of(act: Callable[[], Any]) -> str:
    """What an action says when it fails; empty if it does not."""
    try:
        act()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def disagree(rank: int) -> str:
    """The same measurements, other tables."""
    zoo = zoo_named("latte")
    pipe = zoo.build()
    method = keystep.AdaCache({5.0: 3 + rank}, native=STEPS)

    def act() -> None:
        with keystep.parallel(pipe, check=True), keystep.accelerate(pipe, method):
            zoo.sample(pipe)

    return message_of(act)


def fail_on_one(rank: int) -> tuple[str, list[str]]:
    """Rank 1 fails in mid-generation: what every rank is told, and what it leaves behind."""
    zoo = zoo_named("cogvideox")
    pipe = used(zoo)
    before = snapshot(pipe)

    def end_step(pipe: Any, index: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        if rank == 1 and index == 2:
            raise OSError("disk full")
        return {}

    shared = keystep.parallel(pipe)

    def act() -> None:
        with shared, keystep.accelerate(pipe, METHODS["adacache"]):
            zoo.sample(pipe, {"callback_on_step_end": end_step})

    message, store = message_of(act), _get_default_store()
    if rank == 1:  # it is still there when the other one notices
        store.wait(["noticed"], timedelta(seconds=20))
    else:
        store.set("noticed", "")
    return message, differences(before, snapshot(pipe))


def mix_versions(rank: int) -> str:
    if rank == 1:
        keystep.__version__ = "0.0.1"
    return message_of(lambda: keystep.parallel(zoo_named("latte").build()))


def share_shared(rank: int) -> str:
    pipe = zoo_named("latte").build()
    pipe.transformer._parallel_config = object()
    return message_of(lambda: keystep.parallel(pipe))


def ask_for(rank: int, ulysses: int) -> str:
    return message_of(lambda: keystep.parallel(zoo_named("latte").build(), ulysses=ulysses))


def attach_in_orders(rank: int) -> tuple[list[torch.Tensor], list[str]]:
    """Sharing inside and outside of acceleration, both ways of each; what is left behind."""
    zoo = zoo_named("opensora")
    pipe = used(zoo)
    before, videos = snapshot(pipe), []
    with keystep.parallel(pipe), accelerated(pipe, "fastercache"):
        videos.append(zoo.sample(pipe))
    with accelerated(pipe, "fastercache"), keystep.parallel(pipe):
        videos.append(zoo.sample(pipe))
    keystep.enable(pipe, METHODS["fastercache"])
    shared = keystep.parallel(pipe)
    shared.attach()
    videos.append(zoo.sample(pipe))
    shared.close()
    keystep.disable(pipe)
    left = differences(before, snapshot(pipe))
    shared.attach()
    keystep.enable(pipe, METHODS["fastercache"])
    refused = message_of(shared.close)
    twice = message_of(lambda: keystep.parallel(pipe).attach())
    keystep.disable(pipe)
    shared.close()
    return videos, [*left, *differences(before, snapshot(pipe)), refused, twice]


def break_on_rank_1(rank: int) -> None:
    """Let the second rank fail at the third evaluation of whatever it generates."""
    if rank != 1:
        return
    predict, count = ToyPipeline._predict, itertools.count(1)

    def break_down(self: ToyPipeline, *args: Any) -> torch.Tensor:
        if next(count) == 3:
            raise MemoryError("out of memory")
        return predict(self, *args)

    ToyPipeline._predict = break_down


def generate_families(rank: int, names: tuple[str, ...]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """A generation of each, alone and shared."""
    warnings.simplefilter("ignore")
    made = {}
    for family in FAMILIES:
        if family.name in names:
            pipe = family.build()
            with may_warn(), keystep.accelerate(pipe, METHODS["adacache"]):
                alone = family.sample(pipe, batch=1, steps=4)
                with keystep.parallel(pipe):
                    made[family.name] = (alone, family.sample(pipe, batch=1, steps=4))
    return made


def compile_blocks(rank: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    """A plain generation, one shared in compiled blocks, and what those say that may not be left."""
    zoo = zoo_named("latte")
    made, refused = [], ""
    for is_full in (True, False):  # graphs of the second kind would do for the first
        pipe = zoo.build()
        plain = zoo.sample(pipe, steps=2)
        for block in (*pipe.transformer.transformer_blocks, *pipe.transformer.temporal_transformer_blocks):
            block.compile(backend="eager", fullgraph=is_full)
        with keystep.parallel(pipe):
            if not is_full:
                made = [plain, zoo.sample(pipe, steps=2)]
            else:
                refused = message_of(functools.partial(zoo.sample, pipe, steps=2))
    return made[0], made[1], refused
