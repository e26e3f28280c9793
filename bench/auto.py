"""`python -m bench.auto --model toy`: auto beside fewer steps, at 1/2, 1/3 and 4/15 of the evaluations.

Held-out prompts, seed 0; PSNR to the plain video, mean / tenth percentile over videos. A short look at the
strongest rivals alone: `keystep bench` measures everything.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

import keystep
from keystep.lab.solvers import SOLVERS, convert_scheduler
from keystep.media import write_text
from keystep.metrics.quality import compute_psnr
from keystep.models.toy.grammar import held_out_prompts

STEPS = 30
COUNTS = (15, 10, 8)


def generate(pipe: Any, prompt: str, steps: int) -> Any:
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, num_inference_steps=steps, generator=generator, output_type="np").frames[0]


def measure(pipe: Any, prompts: list[str]) -> dict[str, dict[int, list[float]]]:
    """Name -> evaluations -> PSNR of each video."""
    plain = [generate(pipe, prompt, STEPS) for prompt in prompts]
    own = pipe.scheduler
    found: dict[str, dict[int, list[float]]] = {}
    for count in COUNTS:
        with keystep.accelerate(pipe, "auto", speedup=STEPS / count):
            videos = [generate(pipe, prompt, STEPS) for prompt in prompts]
        rows = {"auto": videos, "same sampler": [generate(pipe, prompt, count) for prompt in prompts]}
        for name, solver in SOLVERS.items():
            pipe.scheduler = convert_scheduler(own, solver)
            rows[name] = [generate(pipe, prompt, count) for prompt in prompts]
            pipe.scheduler = own
        for name, made in rows.items():
            values = [float(compute_psnr(one, other)) for one, other in zip(made, plain, strict=True)]
            found.setdefault(name, {})[count] = values
            print(name, count, f"{np.mean(values):.1f} / {np.quantile(values, 0.1):.1f}", flush=True)
    return found


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
    found = measure(pipe, prompts)
    if args.out is not None:
        write_text(args.out, json.dumps({"model": args.model, "prompts": prompts, "psnr": found}, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
