"""auto, our own: the guided output is forecast as a data prediction, and mistakes are made good afterwards.

No paper: docs/auto.md says how it works and what it was measured against. The forecast is linear with a
damping fitted on line for each channel; at every computed evaluation the latent is moved to where outputs
interpolated between the computed ones would have led; evaluations are placed on the route that costs least
(`when/path.py`). Nothing inside the model is touched, so it needs no model spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Damped
from keystep.policy import Policy, Rule
from keystep.what import Guided
from keystep.when import ErrorControl, Paced

SPEEDUP = 2.5  # where nothing is asked for
TOLERANCES = {"high": 0.02, "balanced": 0.05, "fast": 0.12}
CONVERGED = "converged"
REFINED = 4  # steps of a converged run, for each one asked for; skipped ones are free
LEAST = 2  # computed evaluations


@dataclass(frozen=True)
class Auto:
    """Forecasts the guided output, corrects the latent, and places computed evaluations where they matter.

    Give at most one of `speedup`, `tolerance` and `quality`; without any it is a speed-up of 2.5.

    Attributes:
        speedup: evaluations over computed ones, met by every video to the rounding of one evaluation; needs
            no read from the device.
        tolerance: estimated error of the video relative to its latent, e.g. .05 (lower = better and slower):
            each video gets as many evaluations as that takes; reads four numbers at each computed one.
        quality: `"high"`, `"balanced"`, `"fast"`: a tolerance by name; `"converged"`: four times as many
            steps at the same number of computed evaluations, nearer to what the sampler would give with many
            steps than to its video with these, goes with `speedup`.
        correct: whether the latent is corrected.
    """

    speedup: float = 0.0
    tolerance: float = 0.0
    quality: str = ""
    correct: bool = True

    outline: ClassVar[int] = 1_000_000  # a length of run that every speed-up suits
    citation: ClassVar[str] = "keystep's own, docs/auto.md"

    def __post_init__(self) -> None:
        require(not self.speedup or self.speedup >= 1, "auto.speedup", self.speedup, "0 (2.5) or 1 or more")
        require(self.tolerance >= 0, "auto.tolerance", self.tolerance, "0 (none) or an error above 0")
        allowed = (*TOLERANCES, CONVERGED)
        require(not self.quality or self.quality in allowed, "auto.quality", self.quality, ", ".join(allowed))
        knobs = {"speedup": self.speedup, "tolerance": self.tolerance, "quality": self.quality}
        given = {name: value for name, value in knobs.items() if value}
        if len(given) > 1 and given != {"speedup": self.speedup, "quality": CONVERGED}:
            words = ", ".join(f"{name}={value!r}" for name, value in given.items())
            raise ValueError(
                f"auto: given {words}, which say the same thing twice; give one of them ('converged' also "
                "goes with speedup)"
            )

        is_blind = not self.correct and (self.tolerance or self.quality in TOLERANCES)
        require(
            not is_blind,
            "auto.correct",
            self.correct,
            "True with a tolerance, which is judged by corrections",
        )

    @property
    def refined(self) -> int:
        """Sampling steps for each one that is asked for."""
        return REFINED if self.quality == CONVERGED else 1

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a run of `num_evaluations`, whatever the model.

        Raises:
            ValueError: a speed-up that leaves fewer than two computed evaluations.
        """
        del model
        tolerance = self.tolerance or TOLERANCES.get(self.quality, 0.0)
        if tolerance:
            when = ErrorControl(tolerance)
        else:
            most = max(1.0, num_evaluations / self.refined / LEAST)
            speedup = self.speedup or min(SPEEDUP, most)
            if speedup > most:
                steps = num_evaluations // self.refined
                raise ValueError(
                    f"auto.speedup: given {speedup:g}, allowed for {steps} evaluations: "
                    f"1 to {most:g}, {LEAST} are computed at least; ask for less, or take more steps"
                )
            when = Paced(1.0 / (speedup * self.refined))
        return Policy((Rule(Guided(self.correct), when, Damped()),), "auto")
