"""MagCache: how the size of the stack's residual changes over a run is nearly the same for every prompt.

"MagCache: Fast Video Generation with Magnitude-Aware Cache", arXiv 2506.09045, sections 3.2 and 3.3 (eq. 3 to
7); reference code Zehong-Ma/MagCache.

Built as the reference code: the ratios of one evaluation to the one before are measured once, multiplied over
a run of skips, and the distances of the products from 1 are added up. Once they are known that is a schedule.
Differs in: ratios are means over any number of prompts, where the reference takes one; the conditional
branch's are used for both branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.methods.measured import missing_measurement, read_measured
from keystep.policy import Policy, Rule
from keystep.what import Span
from keystep.when import Mask

# Measured with `keystep calibrate` on models that ship with keystep.
SHIPPED = Path(__file__).parent / "ratios"

# (threshold, most skips in a row). Open-Sora and Wan: the paper's slower settings; others: as diffusers.
PRESETS: dict[str, tuple[float, int]] = {"opensora": (0.06, 1), "wan": (0.12, 2)}
PRESET = (0.06, 3)
RETAINED = 0.2  # part of the run computed at its begin, in paper and code


@dataclass(frozen=True)
class MagCache:
    """Skips the whole stack while its residual is expected to keep its size, from ratios measured before.

    Attributes:
        ratios: a file written by `keystep calibrate --method magcache`, or the ratios themselves, one for
            each evaluation of a run (the first is not used); None = those that ship with keystep.
        threshold: summed deviation from 1 up to which it is skipped (higher = faster); 0 = the model's.
        max_consecutive: at most so many skips in a row; 0 = the model's.
        retained: part of the run that is computed at its begin.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    ratios: str | tuple[float, ...] | None = None
    threshold: float = 0.0
    max_consecutive: int = 0
    retained: float = RETAINED
    cfg: bool = False

    citation: ClassVar[str] = "MagCache (NeurIPS 2025), https://arxiv.org/abs/2506.09045"

    def __post_init__(self) -> None:
        require(self.threshold >= 0, "magcache.threshold", self.threshold, "0 (the model's) or a sum > 0")
        limit = self.max_consecutive
        require(limit >= 0, "magcache.max_consecutive", limit, "0 (the model's) or evaluations >= 1")
        require(0 <= self.retained <= 1, "magcache.retained", self.retained, "0 to 1")
        if isinstance(self.ratios, tuple):
            is_valid = len(self.ratios) > 0 and all(ratio > 0 for ratio in self.ratios)
            require(is_valid, "magcache.ratios", self.ratios, "ratios > 0, one for each evaluation")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`.

        Raises:
            ValueError: there are no ratios for the model.
        """
        threshold, limit = PRESETS.get(model, PRESET)
        letters = decide(
            stretch(self._ratios(model), num_evaluations),
            self.threshold or threshold,
            self.max_consecutive or limit,
            int(self.retained * num_evaluations),
        )
        policy = Policy((Rule(Span(), Mask(letters), Hold()),), "magcache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy

    def _ratios(self, model: str) -> Sequence[float]:
        if isinstance(self.ratios, tuple):
            return self.ratios
        path = SHIPPED / f"{model}.json" if self.ratios is None else Path(self.ratios)
        if self.ratios is None and not path.is_file():
            raise missing_measurement("magcache.ratios", "magcache", model)
        measured = read_measured("magcache.ratios", "magcache", path)
        require(measured.model == model, "magcache.ratios", measured.model, f"ratios of the model {model}")
        return measured.values


def stretch(ratios: Sequence[float], num_evaluations: int) -> list[float]:
    """Ratios for another number of evaluations: those of the nearest place in the run, as the reference."""
    scale = (len(ratios) - 1) / max(1, num_evaluations - 1)
    return [ratios[round(k * scale)] for k in range(num_evaluations)]


def decide(ratios: Sequence[float], threshold: float, max_consecutive: int, num_first: int) -> str:
    """Letters "C" and "s" of a run whose residual changes its size by `ratios`."""
    letters, product, error, run = "", 1.0, 0.0, 0
    for index, ratio in enumerate(ratios):
        product, run = product * ratio, run + 1
        error += abs(1 - product)
        is_skipped = index >= max(1, num_first) and error <= threshold and run <= max_consecutive
        if not is_skipped:
            product, error, run = 1.0, 0.0, 0
        letters += "s" if is_skipped else "C"
    return letters
