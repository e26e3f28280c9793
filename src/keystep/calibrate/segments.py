"""What skipping one stretch of a run, and nothing else, does to the final latent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

import keystep
from keystep.calibrate.generation import final_latent
from keystep.how import Hold
from keystep.methods.static import Edge
from keystep.policy import Policy, Rule
from keystep.what import Span
from keystep.when import Mask


def edges_of(num_evaluations: int, max_gap: int) -> list[Edge]:
    """All stretches with 1 to `max_gap` - 1 skipped evaluations between two computed ones, short first."""
    return [
        (begin, begin + gap) for gap in range(2, max_gap + 1) for begin in range(1, num_evaluations - gap + 1)
    ]


def measure_segments(
    pipe: Any, edges: Iterable[Edge], num_evaluations: int, arguments: Mapping[str, Any], seed: int
) -> Iterator[tuple[Edge, float]]:
    """Measure stretches one after the other.

    Args:
        pipe: a pipeline that keystep knows, nothing attached.
        edges: the stretches.
        num_evaluations: N of the runs.
        arguments: keyword arguments of its call, for one video.
        seed: of the initial noise.

    Yields:
        Edge and error: mean absolute difference of the final latents over the plain one's mean absolute size.
    """
    with torch.no_grad():
        plain = final_latent(pipe, arguments, seed).float()
        for begin, end in edges:
            letters = "C" * begin + "s" * (end - begin - 1) + "C" * (num_evaluations - end + 1)
            policy = Policy((Rule(Span(), Mask(letters), Hold()),), "one stretch")
            with keystep.accelerate(pipe, policy):
                latent = final_latent(pipe, arguments, seed).float()
            yield (begin, end), float((latent - plain).abs().mean() / plain.abs().mean())
