"""Dynamic guidance of Vchitect-2.0's sampler."""

from __future__ import annotations

import math

POWER = 5.0


def guidance_weight(strength: float, timestep: float, num_steps: int) -> float:
    """Weight of (cond - uncond) at a noise level, from 1 to 1 + `strength`.

    The formula takes timesteps to run from `num_steps` to 0. Those of the scheduler run from 1000 to 0, so
    the weight goes up and down from step to step without a pattern; that is how the model is
    sampled. Double precision: a timestep that differs in its last bit gives another weight.

    Args:
        strength: the pipeline's `guidance_scale`.
        timestep: of the scheduler, 1000 to 0.
        num_steps: sampling steps of the run.
    """
    progress = (num_steps - timestep) / num_steps
    return 1 + strength * ((1 - math.cos(math.pi * progress**POWER)) / 2)
