"""TaylorSeer: what is skipped is extrapolated by a Taylor series.

"From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers", arXiv 2503.06923, section 3.3
(eq. 4 to 7); reference code Shenyi-Z/TaylorSeer, and `TaylorSeerCacheConfig` of diffusers, whose defaults are
these.

Differs from both in: the paper and the codes divide differences of any order by the newest gap, which is
right only for even gaps; here the polynomial through the last computed values is exact at any spacing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Taylor
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import Attention, Mlp, Output, Site
from keystep.when import Every

PARTS: tuple[Site, ...] = (Attention(), Attention(("cross",)), Mlp())


@dataclass(frozen=True)
class TaylorSeer:
    """Computes one evaluation of several; extrapolates every attention and MLP output in between.

    Attributes:
        interval: compute one evaluation of so many (higher = faster).
        warmup: evaluations computed at the begin of the run; more than `order`.
        order: degree of the polynomial; each order keeps one more tensor per module.
        lite: extrapolate the model's output instead of every module's: faster and next to no memory.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    interval: int = 5
    warmup: int = 3
    order: int = 1
    lite: bool = False
    cfg: bool = False

    citation: ClassVar[str] = "TaylorSeer (ICCV 2025), https://arxiv.org/abs/2503.06923"

    def __post_init__(self) -> None:
        require(self.interval >= 2, "taylorseer.interval", self.interval, "evaluations >= 2")
        require(1 <= self.order <= 4, "taylorseer.order", self.order, "1 to 4")
        is_enough = self.warmup > self.order
        require(is_enough, "taylorseer.warmup", self.warmup, f"more evaluations than order={self.order}")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        # as diffusers: after the warm-up one is skipped, the next one computed, then one of `interval`
        when = Every(self.interval, start=self.warmup + 1, phase=self.warmup + 2)
        sites = (Output(),) if self.lite else PARTS
        rules = tuple(Rule(site, when, Taylor(self.order)) for site in sites)
        policy = Policy(rules, "taylorseer-lite" if self.lite else "taylorseer", is_partial=not self.lite)
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
