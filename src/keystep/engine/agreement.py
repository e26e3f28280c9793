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

from keystep.what import AttentionInput, BlockProbe, PrefixResidual, Probe, SpanInput, StackInput

if TYPE_CHECKING:
    from keystep.engine.planner import EvaluationPlan
    from keystep.ranks.group import Group

RANKS = "keystep_ranks"  # attribute of a transformer that several processes share
BETWEEN_BLOCKS = (BlockProbe, PrefixResidual, SpanInput, StackInput, AttentionInput)


@dataclass(frozen=True)
class Agreement:
    """How the ranks that share a transformer agree.

    Attributes:
        group: the ranks.
        is_checked: whether they also compare every decision, at the price of one more collective each.
    """

    group: Group
    is_checked: bool = False

    def add_up(self, sums: Sequence[torch.Tensor], probes: Sequence[Probe]) -> list[torch.Tensor]:
        """Sums on the host, over all ranks; one collective.

        Between the blocks each rank measures its own tokens. Elsewhere all of them measure the same, and the
        first rank's sums count.
        """
        counts = [
            each if self.group.rank == 0 or isinstance(probe, BETWEEN_BLOCKS) else torch.zeros_like(each)
            for each, probe in zip(sums, probes, strict=True)
        ]
        total = self.group.all_reduce(torch.cat([each.flatten().double() for each in counts]))
        parts = total.split([each.numel() for each in sums])
        return [part.view(each.shape) for part, each in zip(parts, sums, strict=True)]

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
