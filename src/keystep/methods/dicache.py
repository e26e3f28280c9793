"""DiCache: the first blocks, run at every evaluation, tell when to compute and how far to extrapolate.

"DiCache: Let Diffusion Model Determine Its Own Cache", arXiv 2508.17356 (ICLR 2026): online probe profiling
(when) and dynamic cache trajectory alignment (how); reference code Bujiazi/DiCache.

Differs from the reference in: the blocks that are run for the probe stay in force on a skip, and the residual
of the others alone is predicted, where the reference predicts the whole stack's; the weight of the
extrapolation is the conditional branch's for both branches, and in a batch the largest of its samples; the
first skip waits for two computed evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Linear, Measured
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import PrefixResidual, Span, SpanInput, StackInput
from keystep.when import Accumulate, Progress, RelativeChange

RETAINED = 0.2  # part of the run computed at its begin


@dataclass(frozen=True)
class DiCache:
    """Skips the blocks after a probe while its changes add up to little; extrapolates as far as it has gone.

    Attributes:
        threshold: sum of changes at which it is computed (higher = faster); the reference takes .2 to .4.
        depth: blocks that always run, the probe; 1 or 2 in the reference.
        is_relative: add up how much more the probe changes than the input does, instead of its change; the
            change itself does better on the toy models (bench/LOG.md).
        retained: part of the run that is computed at its begin.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    threshold: float = 0.2
    depth: int = 1
    is_relative: bool = True
    retained: float = RETAINED
    cfg: bool = False

    citation: ClassVar[str] = "DiCache (ICLR 2026), https://arxiv.org/abs/2508.17356"

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "dicache.threshold", self.threshold, "a sum of changes >= 0")
        require(self.depth >= 1, "dicache.depth", self.depth, "blocks >= 1")
        require(0 <= self.retained <= 1, "dicache.retained", self.retained, "0 to 1")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        when = Accumulate(
            self.threshold,
            RelativeChange(SpanInput(), since="previous"),
            num_first=max(1, round(self.retained * num_evaluations)),
            minus=RelativeChange(StackInput(), since="previous", name="input") if self.is_relative else None,
        )
        how = Linear(Measured(Progress(PrefixResidual(self.depth))))
        policy = Policy((Rule(Span(self.depth), when, how),), "dicache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
