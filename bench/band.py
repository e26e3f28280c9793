"""`python -m bench.band --model toy`: whether one tolerance gives one quality, whatever the run is like.

`auto` by the tolerance "balanced" over numbers of steps, schedulers and guidance scales; held-out prompts,
seed 0; PSNR to the plain video of the same setting, mean / lowest over videos, and the evaluations computed.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import keystep
from keystep.lab.solvers import SAME_SAMPLER, SOLVERS, convert_scheduler
from keystep.media import write_text
from keystep.metrics.quality import compute_psnr
from keystep.models.toy.grammar import held_out_prompts


@dataclass(frozen=True)
class Setting:
    """One way to call the pipeline; guidance None = the model's own scale."""

    steps: int = 30
    solver: str = SAME_SAMPLER
    guidance: float | None = None

    def __str__(self) -> str:
        guidance = "own guidance" if self.guidance is None else f"guidance {self.guidance:g}"
        return f"{self.steps} steps, {self.solver}, {guidance}"


SETTINGS = (
    *(Setting(steps=steps) for steps in (20, 30, 50, 100)),
    *(Setting(solver=solver) for solver in SOLVERS),
    *(Setting(guidance=guidance) for guidance in (1.0, 3.0, 6.0, 9.0)),
)


@contextmanager
def sampled_by(pipe: Any, solver: str) -> Iterator[None]:
    own = pipe.scheduler
    if solver != SAME_SAMPLER:
        pipe.scheduler = convert_scheduler(own, SOLVERS[solver])
    try:
        yield
    finally:
        pipe.scheduler = own


def generate(pipe: Any, prompt: str, setting: Setting) -> Any:
    options = {} if setting.guidance is None else {"guidance_scale": setting.guidance}
    generator = torch.Generator().manual_seed(0)
    return pipe(
        prompt, num_inference_steps=setting.steps, generator=generator, output_type="np", **options
    ).frames[0]


def measure(pipe: Any, setting: Setting, prompts: list[str]) -> dict[str, Any]:
    """PSNR, computed evaluations and estimated error of each video."""
    found: dict[str, Any] = {"psnr": [], "computed": [], "estimated_error": []}
    with sampled_by(pipe, setting.solver):
        for prompt in prompts:
            plain = generate(pipe, prompt, setting)
            with keystep.accelerate(pipe, "auto", quality="balanced") as session:
                video = generate(pipe, prompt, setting)
            assert session.trace is not None
            found["psnr"].append(float(compute_psnr(video, plain)))
            found["computed"].append(len(session.trace.key_steps))
            found["estimated_error"].append(session.trace.estimated_error)
    psnr = found["psnr"]
    print(f"{setting}: {np.mean(psnr):.1f} / {min(psnr):.1f}, computed {found['computed']}", flush=True)
    return {**asdict(setting), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="toy", choices=("toy", "toy-flow"))
    parser.add_argument("--num-prompts", type=int, default=4)
    parser.add_argument("--out", type=Path, help="JSON file for every video's figure")
    args = parser.parse_args()
    torch.set_num_threads(1)
    pipe = keystep.load(args.model)
    pipe.set_progress_bar_config(disable=True)
    prompts = list(held_out_prompts(args.num_prompts))
    rows = [measure(pipe, setting, prompts) for setting in SETTINGS]
    means = [np.mean(row["psnr"]) for row in rows]
    print(f"from {min(means):.1f} to {max(means):.1f} dB")
    if args.out is not None:
        write_text(args.out, json.dumps({"model": args.model, "prompts": prompts, "rows": rows}, indent=1))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
