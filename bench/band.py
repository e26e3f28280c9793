"""`python -m bench.band --model toy`: whether one tolerance gives one quality, whatever the run is like.

`auto` by the tolerance "balanced" over numbers of steps, schedulers and guidance scales; held-out prompts,
seed 0; PSNR to the plain video of the same setting, mean / lowest over videos, and the evaluations computed.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import keystep
from bench.toys import Figures, generate, look
from keystep.lab.solvers import SAME_SAMPLER, SOLVERS, sampled_by
from keystep.metrics.quality import compute_psnr


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


def measure_setting(pipe: Any, setting: Setting, prompts: list[str]) -> Figures:
    """PSNR, computed evaluations and estimated error of each video."""
    found: dict[str, Any] = {"psnr": [], "computed": [], "estimated_error": []}
    options = {} if setting.guidance is None else {"guidance_scale": setting.guidance}
    is_own = setting.solver == SAME_SAMPLER
    with nullcontext() if is_own else sampled_by(pipe, SOLVERS[setting.solver]):
        for prompt in prompts:
            plain = generate(pipe, prompt, setting.steps, **options)
            with keystep.accelerate(pipe, "auto", quality="balanced") as session:
                video = generate(pipe, prompt, setting.steps, **options)
            assert session.trace is not None
            found["psnr"].append(float(compute_psnr(video, plain)))
            found["computed"].append(len(session.trace.key_steps))
            found["estimated_error"].append(session.trace.estimated_error)
    psnr = found["psnr"]
    print(f"{setting}: {np.mean(psnr):.1f} / {min(psnr):.1f}, computed {found['computed']}", flush=True)
    return {**asdict(setting), **found}


def measure(pipe: Any, prompts: list[str]) -> Figures:
    """`rows`: one for each setting."""
    rows = [measure_setting(pipe, setting, prompts) for setting in SETTINGS]
    means = [np.mean(row["psnr"]) for row in rows]
    print(f"from {min(means):.1f} to {max(means):.1f} dB")
    return {"rows": rows}


if __name__ == "__main__":
    look(__doc__, 8, measure)
