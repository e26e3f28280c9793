"""SeaCache: how far the latent has come, judged by what at its noise level is video and not noise.

"SeaCache: Spectral-Evolution-Aware Cache for Accelerating Diffusion Models", arXiv 2602.18993 (eq. 7: the
filter, its mean gain 1); built after `SeaCacheConfig` of diffusers, whose defaults are these.

Differs from diffusers in: it looks at every model's latents and reads the noise level from any scheduler,
where diffusers has adapters for Wan's text to video and Cosmos 3; the extrapolation goes by the scheduler's
time instead of the count of steps, so it is exact on uneven ones, and waits for two computed evaluations; the
most restless sample of a batch decides for both branches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Taylor
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import FilteredLatent, Span
from keystep.when import Accumulate, RelativeChange

POWER = 3.0  # of the spectrum of videos, with frequency


@dataclass(frozen=True)
class SeaCache:
    """Skips the whole stack while the changes of the filtered latent add up to little.

    Attributes:
        threshold: sum of relative changes at which it is computed (higher = faster).
        order: of the polynomial that extrapolates the stack's residual; 0 = it is held.
        max_consecutive: at most so many skips in a row; None = no limit.
        power: exponent of the videos' spectrum in the filter.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    threshold: float = 0.25
    order: int = 1
    max_consecutive: int | None = 2
    power: float = POWER
    cfg: bool = False

    citation: ClassVar[str] = "SeaCache, https://arxiv.org/abs/2602.18993"

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "seacache.threshold", self.threshold, "a sum of changes >= 0")
        require(self.order in (0, 1), "seacache.order", self.order, "0 or 1")
        limit = self.max_consecutive
        require(limit is None or limit >= 1, "seacache.max_consecutive", limit, "None or evaluations >= 1")
        require(self.power > 0, "seacache.power", self.power, "an exponent > 0")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        change = RelativeChange(FilteredLatent(self.power), since="previous")
        when = Accumulate(self.threshold, change, max_consecutive=self.max_consecutive)
        policy = Policy((Rule(Span(), when, Taylor(self.order)),), "seacache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
