"""What the processes of the tests of CFG parallelism do."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

import keystep
from keystep.engine.method import Method
from keystep.models.catalogue import import_name
from keystep.plan import Layout
from keystep.plan.workload import Workload
from tests.laws.instruments import differences, snapshot
from tests.matrix import METHODS
from tests.parallel.work import Made, generate, message_of, used, zoo_named


def generate_apart(
    rank: int, name: str, methods: tuple[str, ...], ulysses: int, arguments: dict[str, Any]
) -> dict[str, Made]:
    """A generation with each method, the branches on ranks of their own; decisions are compared."""
    zoo = zoo_named(name)
    pipe, made = zoo.build(), {}
    for method in methods:
        with keystep.parallel(pipe, ulysses=ulysses, cfg=2, check=True) as shared:
            made[method] = generate(zoo, pipe, method, **arguments)
            made[method].traffic = shared.traffic
    return made


def attach_in_orders(rank: int, name: str) -> tuple[list[torch.Tensor], list[str]]:
    """Inside and outside of acceleration; what is left behind."""
    zoo = zoo_named(name)
    pipe = used(zoo)
    before, videos, method = snapshot(pipe), [], METHODS["adacache"]
    with keystep.parallel(pipe, cfg=2), keystep.accelerate(pipe, method):
        videos.append(zoo.sample(pipe))
    with keystep.accelerate(pipe, method), keystep.parallel(pipe, cfg=2):
        videos.append(zoo.sample(pipe))
    return videos, differences(before, snapshot(pipe))


def ask_for_cfg_cache(rank: int) -> list[str]:
    """Either way round."""
    pipe = zoo_named("latte").build()

    def inside() -> None:
        with keystep.parallel(pipe, cfg=2), keystep.accelerate(pipe, METHODS["fastercache"]):
            pass

    def outside() -> None:
        with keystep.accelerate(pipe, METHODS["fastercache"]), keystep.parallel(pipe, cfg=2):
            pass

    return [message_of(inside), message_of(outside)]


def leave_guidance(rank: int, name: str) -> str:
    """A pipeline without guidance."""
    zoo = zoo_named(name)
    pipe = zoo.build()

    def act() -> None:
        with keystep.parallel(pipe, cfg=2):
            zoo.sample(pipe, scale=1.0)

    return message_of(act)


def pause_guidance(rank: int) -> tuple[list[torch.Tensor], str]:
    """A transformer called by hand, once for each branch; then a pipeline that asks for one of them only."""
    zoo = zoo_named("wan")
    pipe = zoo.build()
    pipe._guidance_scale = 4.0
    latents, time = zoo.arguments()["latents"], torch.tensor([500])
    texts = zoo.texts(1, torch.Generator().manual_seed(0)).values()

    def act() -> None:
        with keystep.parallel(pipe, cfg=2):
            pipe.transformer(latents, time, next(iter(texts)))
            pipe.scheduler.step(latents, pipe.scheduler.timesteps[0], latents)

    with torch.no_grad():
        with keystep.parallel(pipe.transformer, cfg=2):
            outputs = [pipe.transformer(latents, time, text).sample for text in texts]
        return outputs, message_of(act)


@torch.no_grad()
def send(rank: int, job: Workload, methods: dict[str, Method], layout: Layout) -> dict[str, tuple[int, int]]:
    """Collectives and bytes of a run with each method, on random weights and without a sampler."""
    torch.manual_seed(0)
    transformer = import_name(job.blueprint.transformer)(**job.config).eval()
    calls = tree_map(lambda x: torch.randn(x.shape, dtype=x.dtype) if x.is_meta else x, job.make_calls())
    sent = {}
    for key, method in methods.items():
        with (
            keystep.parallel(transformer, layout.ulysses, layout.num_gpus // layout.ulysses) as shared,
            keystep.accelerate(transformer, method, spec=job.spec) as session,
        ):
            session.begin(job.num_evaluations, times=range(job.num_evaluations, 0, -1))
            for _ in range(job.num_evaluations):
                for inputs in calls:
                    transformer(**inputs)
                session.step()
            del shared.traffic.collectives["gather_objects"]  # sizes, told once
            sent[key] = shared.traffic.num_collectives, shared.traffic.num_bytes
    return sent
