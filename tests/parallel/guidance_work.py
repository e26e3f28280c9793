"""What the processes of the tests of CFG parallelism do."""

from __future__ import annotations

import keystep
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
