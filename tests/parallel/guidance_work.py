"""What the processes of the tests of CFG parallelism do."""

from __future__ import annotations

import torch
from torch.utils._pytree import tree_map

import keystep
from keystep.engine.session import Method
from keystep.models.catalogue import import_name
from keystep.plan import Layout
from keystep.plan.workload import Workload
from tests.parallel.work import Made, generate, zoo_named


def generate_apart(rank: int, name: str, methods: tuple[str, ...], ulysses: int) -> dict[str, Made]:
    """A generation with each method, the branches on ranks of their own; decisions are compared."""
    zoo = zoo_named(name)
    pipe, made = zoo.build(), {}
    for method in methods:
        with keystep.parallel(pipe, ulysses=ulysses, cfg=2, check=True) as shared:
            made[method] = generate(zoo, pipe, method)
            made[method].traffic = shared.traffic
    return made


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
