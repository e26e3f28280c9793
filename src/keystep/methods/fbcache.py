"""FBCache: if the first block changes its input as before, so will the others.

First-block cache of ParaAttention (chengzeyi/ParaAttention, first_block_cache/), also `FirstBlockCacheConfig`
of diffusers. There is no paper; the rule is the reference's.

Differs from the reference in: the conditional branch and the most restless sample of a batch decide, where it
pools batched branches and lets separate ones decide each for itself; where blocks of two kinds alternate, the
first of each kind stand for the first block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import PrefixResidual, Span
from keystep.when import Below, RelativeChange


@dataclass(frozen=True)
class FBCache:
    """Skips all blocks but the first while that one's residual stays as it was when all were computed.

    Attributes:
        threshold: relative change of the first block's residual (higher = faster). ParaAttention uses .06 on
            HunyuanVideo and up to .2 elsewhere; .05 is diffusers' default.
        max_consecutive: at most so many skips in a row; None = no limit, as in the reference.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    threshold: float = 0.05
    max_consecutive: int | None = None
    cfg: bool = False

    citation: ClassVar[str] = "ParaAttention, https://github.com/chengzeyi/ParaAttention"

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "fbcache.threshold", self.threshold, "a relative change >= 0")
        limit = self.max_consecutive
        require(limit is None or limit >= 1, "fbcache.max_consecutive", limit, "None or evaluations >= 1")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        change = RelativeChange(PrefixResidual(1))
        when = Below(self.threshold, change, num_last=0, max_consecutive=self.max_consecutive)
        policy = Policy((Rule(Span(1), when, Hold()),), "fbcache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
