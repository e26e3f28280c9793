"""One decision on all ranks: where several processes share a video, their sums are added up before anybody
decides.

Decisions that differ make ranks wait for each other for ever: one computes attention and sends its tokens,
the other skips it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from keystep.what import LEAD, AttentionInput, BlockProbe, Branch, PrefixResidual, SpanInput, StackInput

if TYPE_CHECKING:
    from keystep.engine.measure import Measurement
    from keystep.engine.planner import EvaluationPlan
    from keystep.policy import Policy
    from keystep.ranks.group import Group
    from keystep.ranks.guidance import SplitGuidance

RANKS = "keystep_ranks"  # attribute of a transformer that several processes share
BETWEEN_BLOCKS = (BlockProbe, PrefixResidual, SpanInput, StackInput, AttentionInput)


@dataclass(frozen=True)
class Agreement:
    """How the ranks that share a transformer agree.

    Attributes:
        group: the ranks.
        is_checked: whether they also compare every decision, at the price of one more collective each.
        split: how they share the guidance branches; None = every rank has both.
    """

    group: Group
    is_checked: bool = False
    split: SplitGuidance | None = None

    @property
    def lead(self) -> str:
        """The branch in which this rank measures what the leading one decides by."""
        return LEAD if self.split is None else self.split.branch

    def add_up(self, measurements: Sequence[Measurement]) -> list[torch.Tensor]:
        """Sums on the host, over all ranks; one collective.

        Between the blocks each rank measures its own tokens. Elsewhere all ranks of a branch measure the
        same, and those of the first of them count. Branches that do not lead count where all are pooled.
        """
        is_first = (self.group.rank if self.split is None else self.split.place) == 0
        sums = [measurement.sums for measurement in measurements]
        counts = [
            each.sums
            if (self.lead == LEAD or each.signal.over == "all")
            and (is_first or isinstance(each.probe, BETWEEN_BLOCKS))
            else torch.zeros_like(each.sums)
            for each in measurements
        ]
        total = self.group.all_reduce(torch.cat([each.flatten().double() for each in counts]))
        parts = total.split([each.numel() for each in sums])
        return [part.view(each.shape) for part, each in zip(parts, sums, strict=True)]

    def check_policy(self, policy: Policy) -> None:
        """Raise ValueError if the ranks cannot carry a policy out together."""
        if self.split is not None and any(isinstance(rule.what, Branch) for rule in policy.rules):
            raise ValueError(
                f"policy {policy.name!r}: it rebuilds one guidance branch from the other (CFG-Cache), so "
                "with cfg=2 half of the ranks would stand idle; use cfg=1, or leave that rule out "
                "(cfg=False where the method has it)"
            )

    def close_evaluation(self) -> None:
        """The scheduler takes its step."""
        if self.split is not None:
            self.split.close_evaluation()

    def check(self, plan: EvaluationPlan | None) -> None:
        """Raise RuntimeError if the ranks are about to do different things; says who does what."""
        if not self.is_checked or plan is None:
            return
        own = {label: (step.action, step.is_visited) for label, step in plan.steps.items()}
        every = self.group.gather_objects((plan.evaluation, plan.active, own))
        if any(other != every[0] for other in every):
            said = "; ".join(
                f"rank {rank}: evaluation {number}, branches {', '.join(active)}, "
                + ", ".join(f"{label} {action}" for label, (action, _) in steps.items())
                for rank, (number, active, steps) in zip(self.group.ranks, every, strict=True)
            )
            raise RuntimeError(f"ranks disagree on what to compute: {said}")


def agreement_of(module: nn.Module) -> Agreement | None:
    """How the ranks that share a transformer agree; None = one process has it for itself."""
    return vars(module).get(RANKS)
