"""`python -m bench.auto --model toy`: auto beside fewer steps, two thirds to a quarter of the evaluations.

Held-out prompts, seed 0; PSNR to the plain video, mean / tenth percentile over videos; and how well the
estimated error ranks the videos of all budgets. A short look at the strongest rivals alone: `keystep bench`
measures everything.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from scipy.stats import spearmanr

import keystep
from bench.toys import Figures, generate, look
from keystep.lab.solvers import SOLVERS, sampled_by
from keystep.metrics.outcome import low_percentile
from keystep.metrics.quality import compute_psnr

STEPS = 30
COUNTS = (20, 15, 12, 10, 8, 7)
OWN = "auto"


def generate_own(pipe: Any, prompt: str, count: int) -> tuple[Any, float]:
    """A video of auto, and its estimated error."""
    with keystep.accelerate(pipe, OWN, speedup=STEPS / count) as session:
        video = generate(pipe, prompt, STEPS)
    assert session.trace is not None and session.trace.estimated_error is not None
    return video, session.trace.estimated_error


def measure(pipe: Any, prompts: list[str]) -> Figures:
    """`psnr`: name -> evaluations -> each video's; `error`: evaluations -> estimated errors; `ranks`."""
    plain = [generate(pipe, prompt, STEPS) for prompt in prompts]
    found: dict[str, dict[int, list[float]]] = {}
    errors: dict[int, list[float]] = {}
    for count in COUNTS:
        videos, errors[count] = map(list, zip(*(generate_own(pipe, p, count) for p in prompts), strict=True))
        rows = {OWN: videos, "same sampler": [generate(pipe, prompt, count) for prompt in prompts]}
        for name, solver in SOLVERS.items():
            with sampled_by(pipe, solver):
                rows[name] = [generate(pipe, prompt, count) for prompt in prompts]
        for name, made in rows.items():
            values = [float(compute_psnr(one, other)) for one, other in zip(made, plain, strict=True)]
            found.setdefault(name, {})[count] = values
            print(name, count, f"{fmean(values):.1f} / {low_percentile(values):.1f}", flush=True)
    ranks = correlate(found[OWN], errors)
    print("rank correlation of the estimated error:", {name: round(rank, 2) for name, rank in ranks.items()})
    return {"psnr": found, "error": errors, "ranks": ranks}


def correlate(psnr: dict[int, list[float]], errors: dict[int, list[float]]) -> dict[str, float]:
    """Rank correlation of quality and estimated error, over all videos and budgets and within each."""
    pairs = {str(count): (psnr[count], errors[count]) for count in psnr}
    pairs["all"] = (sum(psnr.values(), []), sum(errors.values(), []))
    return {name: -float(spearmanr(*pair).statistic) for name, pair in pairs.items()}


if __name__ == "__main__":
    look(__doc__, 32, measure)
