"""`python -m bench.auto --model toy`: auto beside fewer steps, from a half to a quarter of the evaluations.

Held-out prompts, seed 0; PSNR to the plain video, mean / tenth percentile over videos; and how well the
estimated error ranks the videos of all budgets. A short look at the strongest rivals alone: `keystep bench`
measures everything.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

import keystep
from keystep.lab.solvers import SOLVERS, convert_scheduler
from keystep.media import write_text
from keystep.metrics.quality import compute_psnr
from keystep.models.toy.grammar import held_out_prompts

STEPS = 30
COUNTS = (15, 12, 10, 8, 7)
OWN = "auto"


def generate(pipe: Any, prompt: str, steps: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, num_inference_steps=steps, generator=generator, output_type="np").frames[0]


def generate_own(pipe: Any, prompt: str, count: int) -> tuple[Any, float]:
    """A video of auto, and its estimated error."""
    with keystep.accelerate(pipe, OWN, speedup=STEPS / count) as session:
        video = generate(pipe, prompt, STEPS)
    assert session.trace is not None and session.trace.estimated_error is not None
    return video, session.trace.estimated_error


def measure(
    pipe: Any, prompts: list[str]
) -> tuple[dict[str, dict[int, list[float]]], dict[int, list[float]]]:
    """Name -> evaluations -> PSNR of each video; evaluations -> estimated errors."""
    plain = [generate(pipe, prompt, STEPS) for prompt in prompts]
    own = pipe.scheduler
    found: dict[str, dict[int, list[float]]] = {}
    errors: dict[int, list[float]] = {}
    for count in COUNTS:
        videos, errors[count] = map(list, zip(*(generate_own(pipe, p, count) for p in prompts), strict=True))
        rows = {OWN: videos, "same sampler": [generate(pipe, prompt, count) for prompt in prompts]}
        for name, solver in SOLVERS.items():
            pipe.scheduler = convert_scheduler(own, solver)
            rows[name] = [generate(pipe, prompt, count) for prompt in prompts]
            pipe.scheduler = own
        for name, made in rows.items():
            values = [float(compute_psnr(one, other)) for one, other in zip(made, plain, strict=True)]
            found.setdefault(name, {})[count] = values
            print(name, count, f"{np.mean(values):.1f} / {np.quantile(values, 0.1):.1f}", flush=True)
    return found, errors


def correlate(psnr: dict[int, list[float]], errors: dict[int, list[float]]) -> dict[str, float]:
    """Rank correlation of quality and estimated error, over all videos and budgets and within each."""
    pairs = {str(count): (psnr[count], errors[count]) for count in psnr}
    pairs["all"] = (sum(psnr.values(), []), sum(errors.values(), []))
    return {name: -float(spearmanr(*pair).statistic) for name, pair in pairs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toy", choices=("toy", "toy-flow"))
    parser.add_argument("--num-prompts", type=int, default=8)
    parser.add_argument("--out", type=Path, help="JSON file for every video's figure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = keystep.load(args.model)
    pipe.set_progress_bar_config(disable=True)
    prompts = list(held_out_prompts(args.num_prompts))
    found, errors = measure(pipe, prompts)
    ranks = correlate(found[OWN], errors)
    print(
        "rank correlation of the estimated error:", {name: round(value, 2) for name, value in ranks.items()}
    )
    if args.out is not None:
        data = {"model": args.model, "prompts": prompts, "psnr": found, "error": errors, "ranks": ranks}
        write_text(args.out, json.dumps(data, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
