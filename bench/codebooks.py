"""AdaCache codebooks for models without published ones: thresholds that reach the paper's compute ratios.

    python -m bench.codebooks

The paper (arXiv 2411.02397, tables 1 and 2) gives compute for Latte and Open-Sora-Plan, from which the mean
number of computed evaluations follows, but no thresholds. Here the thresholds of Open-Sora's book, its rates
scaled to the length of the run, are multiplied by one factor, found by bisection on development prompts of
the trained toy model, a small network of Latte's kind, with the model's own sampler. On other weights the
count will differ: multiply the thresholds (`codebook={...}`) to get yours.
"""

from __future__ import annotations

import statistics
import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDIMScheduler, PNDMScheduler

import keystep
from keystep.methods.adacache import BOOKS, AdaCache, Book, scale
from keystep.models.toy.grammar import development_prompts

NUM_PROMPTS = 6
NUM_HALVINGS = 7


@dataclass(frozen=True)
class Target:
    """What a book should reach: computed evaluations of a run, from the paper's FLOPs."""

    name: str
    book: str
    scheduler: type[Any]
    steps: int
    num_evaluations: int
    share: float


TARGETS = (
    Target("latte", "fast", DDIMScheduler, 50, 50, 14.7 / 50),
    Target("latte", "slow", DDIMScheduler, 50, 50, 29.4 / 50),
    # 150 steps of PNDM are 159 evaluations; the share of the run is the paper's
    Target("opensora-plan", "fast", PNDMScheduler, 150, 159, 40.9 / 150),
    Target("opensora-plan", "slow", PNDMScheduler, 150, 159, 62.1 / 150),
)


def multiply(book: Book, factor: float) -> Book:
    """The book with all thresholds times a factor."""
    return replace(book, entries=tuple((threshold * factor, rate) for threshold, rate in book.entries))


def count(pipe: Any, book: Book, target: Target) -> float:
    """Mean number of computed evaluations over the prompts."""
    method = AdaCache(dict(book.entries), book.native, book.otherwise)
    counts = []
    with keystep.accelerate(pipe, method) as session:
        for seed, prompt in enumerate(development_prompts(NUM_PROMPTS)):
            generator = torch.Generator().manual_seed(seed)
            pipe(prompt, num_inference_steps=target.steps, generator=generator, output_type="latent")
            assert session.trace is not None
            assert session.trace.num_evaluations == target.num_evaluations
            counts.append(len(session.trace.key_steps))
    return statistics.mean(counts)


def calibrate(target: Target) -> tuple[float, float]:
    """(factor, mean count) nearest to the target; larger thresholds compute less."""
    pipe = keystep.load("toy")
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = target.scheduler.from_config(pipe.scheduler.config)
    book = scale(BOOKS[target.book], target.num_evaluations)
    wanted = target.share * target.num_evaluations
    low, high, best = 0.02, 50.0, (0.0, float("inf"))
    for _ in range(NUM_HALVINGS):
        middle = (low * high) ** 0.5
        found = count(pipe, multiply(book, middle), target)
        if abs(found - wanted) < abs(best[1] - wanted):
            best = middle, found
        low, high = (low, middle) if found < wanted else (middle, high)
    return best


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", keystep.KeystepWarning)
    for target in TARGETS:
        factor, found = calibrate(target)
        book = multiply(scale(BOOKS[target.book], target.num_evaluations), factor)
        entries = ", ".join(f"({threshold:.4f}, {rate})" for threshold, rate in book.entries)
        wanted = target.share * target.num_evaluations
        print(
            f"{target.name} {target.book}: factor {factor:.3f}, {found:.1f} of {wanted:.1f}: {entries}",
            flush=True,
        )


if __name__ == "__main__":
    main()
