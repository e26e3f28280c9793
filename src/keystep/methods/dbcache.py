"""DBCache: the first blocks tell whether the middle ones are skipped; the last ones always correct.

Dual block cache of cache-dit, vipshop/cache-dit@f86744a, caching/cache_contexts/cache_manager.py:863 (the
rule), caching/cache_interface.py:612 (the step masks). There is no paper.

Differs from the reference in: the conditional branch and the most restless sample of a batch decide, where it
pools batched branches and lets separate ones decide each for itself; step masks made for 28 steps are
stretched to other lengths by the nearest step, where the reference grows and cuts their runs; Taylor series
are exact for uneven steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold, Predictor, Taylor
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import PrefixResidual, Span
from keystep.when import Below, Controller, Mask, RelativeChange

NUM_FIRST = 8  # cache-dit's default for every model
SHALLOW = {"toy": 1, "toy-flow": 1}  # models with fewer blocks than that

# Step masks for 28 steps, cache_interface.py:646: runs that are computed and runs that may be skipped.
MASKS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "slow": ((8, 3, 3, 2, 1, 1), (1, 2, 2, 2, 3)),
    "medium": ((6, 2, 2, 2, 2, 1), (1, 3, 3, 3, 3)),
    "fast": ((6, 1, 1, 1, 1, 1), (1, 3, 4, 5, 4)),
    "ultra": ((4, 1, 1, 1, 1), (2, 5, 6, 7)),
}


def mask_for(name: str, num_evaluations: int) -> str:
    """A named mask, or letters "C" and "s", as letters for a run of `num_evaluations`."""
    if name in MASKS:
        computed, skipped = MASKS[name]
        name = "".join(
            "C" * c + "s" * s for c, s in zip(computed, (*skipped, 0), strict=True)
        )  # one run more is computed than skipped: the mask ends with it
    last = max(1, num_evaluations - 1)
    return "".join(name[round(k * (len(name) - 1) / last)] for k in range(num_evaluations))


@dataclass(frozen=True)
class DBCache:
    """Skips the middle blocks while the first ones change their input as before; the last ones always run.

    Attributes:
        first: blocks at the begin that always run and are measured; 0 = 8, or 1 in the shallow toy models.
        last: blocks at the end that always run.
        threshold: relative change of the first blocks' residual (higher = faster).
        warmup: evaluations computed at the begin of the run.
        max_consecutive: at most so many skips in a row; None = no limit.
        max_skips: at most so many skips in a run; None = no limit.
        max_total: no skips once the changes that were looked at add up to this; inf = no limit.
        mask: evaluations that may be skipped: "slow", "medium", "fast", "ultra", or letters such as "CCCsCs"
            (C computes), stretched to the run; empty = all.
        static: skip all evaluations that `mask` lets skip, without measuring.
        order: of the Taylor series that fills in what is skipped; 0 = hold.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    first: int = 0
    last: int = 0
    threshold: float = 0.08
    warmup: int = 8
    max_consecutive: int | None = None
    max_skips: int | None = None
    max_total: float = float("inf")
    mask: str = ""
    static: bool = False
    order: int = 0
    cfg: bool = False

    citation: ClassVar[str] = "cache-dit, https://github.com/vipshop/cache-dit"

    def __post_init__(self) -> None:
        require(self.first >= 0, "dbcache.first", self.first, "a number of blocks >= 1, or 0 for the default")
        require(self.last >= 0, "dbcache.last", self.last, "a number of blocks >= 0")
        require(self.threshold >= 0, "dbcache.threshold", self.threshold, "a relative change >= 0")
        require(self.warmup >= 1, "dbcache.warmup", self.warmup, "evaluations >= 1")
        is_known = self.mask in MASKS or set(self.mask) <= {"C", "s"}
        require(is_known, "dbcache.mask", self.mask, f"{', '.join(MASKS)}, or letters C and s, or nothing")
        require(not self.static or bool(self.mask), "dbcache.static", self.static, "True only with a mask")
        self.policy("", 1)  # checks the limits and the order

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        first = self.first or SHALLOW.get(model, NUM_FIRST)
        rule = Rule(Span(first, self.last), self._controller(first, num_evaluations), self._predictor())
        policy = Policy((rule,), "dbcache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy

    def _controller(self, first: int, num_evaluations: int) -> Controller:
        mask = mask_for(self.mask, num_evaluations) if self.mask else ""
        if self.static:
            warmup = min(self.warmup, num_evaluations)
            return Mask("C" * warmup + mask[warmup:])
        return Below(
            self.threshold,
            RelativeChange(PrefixResidual(first)),
            self.warmup,
            0,
            self.max_consecutive,
            self.max_skips,
            self.max_total,
            mask,
        )

    def _predictor(self) -> Predictor:
        return Taylor(self.order) if self.order else Hold()
