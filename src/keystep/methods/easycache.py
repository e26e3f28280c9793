"""EasyCache: the output's change is foretold from the latent's, by a rate measured on the way.

"Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching", arXiv 2507.02860,
section 3.2 (transformation rate, accumulated deviation); reference code H-EmbodVis/EasyCache.

Built as the reference code: the rate is that of the newest two computed evaluations, and the model's output
minus the latent is held, so a skip calls nothing of the model. Differs in: the most restless sample of a
batch decides; warm-up is a fraction of the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import Output
from keystep.when import PredictedChange

# Thresholds: HunyuanVideo as in the paper, Wan as in the reference code.
THRESHOLDS = {"hunyuanvideo": 0.025, "wan": 0.05}
THRESHOLD = 0.05  # for other models
WARMUP = 0.14  # 7 of 50 evaluations, the reference's choice for Wan


@dataclass(frozen=True)
class EasyCache:
    """Skips the whole model while the changes of its output, foretold from the latent's, add up to little.

    Attributes:
        threshold: sum of foretold relative changes at which it is computed (higher = faster); 0 = the
            model's, or .05.
        warmup: part of the run that is computed at its begin.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    threshold: float = 0.0
    warmup: float = WARMUP
    cfg: bool = False

    citation: ClassVar[str] = "EasyCache, https://arxiv.org/abs/2507.02860"

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "easycache.threshold", self.threshold, "0 (the model's) or a sum > 0")
        require(0 <= self.warmup <= 1, "easycache.warmup", self.warmup, "0 to 1")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        threshold = self.threshold or THRESHOLDS.get(model, THRESHOLD)
        when = PredictedChange(threshold, max(2, round(self.warmup * num_evaluations)))
        policy = Policy((Rule(Output("latent"), when, Hold()),), "easycache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
