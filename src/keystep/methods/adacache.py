"""AdaCache: each video gets its own schedule from how fast its features change; MoReg minds its motion.

"Adaptive Caching for Faster Video Generation with Diffusion Transformers", arXiv 2411.02397, sections 3.2
(codebook) and 3.3 (motion regularisation); reference code AdaCache-DiT/AdaCache@2c6d3ca, stdit3.py.

Differs from the reference in: all of its residuals are skipped together and come from one evaluation, so one
tensor (stack output minus stack input) stands for its one per block; the conditional branch and the most
restless sample of a batch decide (`over="all"` pools as the reference does); the state ends with the
generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict

from keystep.errors import require, unknown
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import AttentionResidual, Span
from keystep.when import Codebook, MotionRatio, MotionRegularisation, RelativeChange


@dataclass(frozen=True)
class Book:
    """A codebook for runs of `native` evaluations: (threshold, rate) pairs, the rate beyond, the MoReg
    window.
    """

    native: int
    entries: tuple[tuple[float, int], ...]
    otherwise: int
    window: tuple[int, int]


# Paper, appendix A.1; reference configs/sample_adacache*.py. The slow book's window is not published: the
# fast one's.
BOOKS: dict[str, Book] = {
    "fast": Book(30, ((0.08, 6), (0.16, 5), (0.24, 4), (0.32, 3), (0.40, 2)), 1, (4, 26)),
    "slow": Book(30, ((0.08, 3), (0.16, 2)), 1, (4, 26)),
    "fast-100": Book(100, ((0.03, 12), (0.05, 10), (0.07, 8), (0.09, 6), (0.11, 4)), 3, (10, 90)),
}

# Ours: the authors published no thresholds for these models. Found so that simulated runs compute as often as
# the paper's FLOPs say (bench/codebooks.py): Latte 14.7 and 29.4 of 50, Open-Sora-Plan 43.4 and 65.8 of 159.
MODEL_BOOKS: dict[tuple[str, str], Book] = {
    ("latte", "fast"): Book(
        50, ((0.0405, 10), (0.0810, 8), (0.1214, 7), (0.1619, 5), (0.2024, 3)), 1, (7, 43)
    ),
    ("latte", "slow"): Book(50, ((0.0542, 5), (0.1085, 3)), 1, (7, 43)),
    ("opensora-plan", "fast"): Book(
        159, ((0.0095, 32), (0.0190, 26), (0.0285, 21), (0.0380, 16), (0.0475, 11)), 1, (21, 138)
    ),
    ("opensora-plan", "slow"): Book(159, ((0.0188, 16), (0.0377, 11)), 1, (21, 138)),
}


@dataclass(frozen=True)
class MoReg:
    """Motion regularisation: spend more evaluations on videos that move more.

    Attributes:
        window: first and last evaluation in which it acts, as fractions of the run; None = the codebook's.
        strides: distances between the compared latent frames.
        pivot: motion ratio that leaves the distance as it is; lower = more evaluations.
        exponent: sharpness of the switch at the pivot.
        divisor: divides the motion level (1 in the reference code).
        gradient: weight of the change of motion between computed evaluations.
    """

    window: tuple[float, float] | None = None
    strides: tuple[int, ...] = (1,)
    pivot: float = 0.385
    exponent: float = 8.0
    divisor: float = 1.0
    gradient: float = 10.0

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        if self.window is not None:
            first, last = self.window
            require(0 <= first <= last <= 1, "moreg.window", self.window, "fractions 0 <= first <= last <= 1")


# The reference's pivot belongs to Open-Sora's latents. Others are ours, from development prompts:
# bench/LOG.md.
MOREG: dict[str, MoReg] = {
    "toy": MoReg(pivot=0.08),  # motion ratios there: still .03, slow .05, fast .09
}


@dataclass(frozen=True)
class AdaCache:
    """Skips the whole stack of blocks for as long as each video's own features stay put.

    Attributes:
        codebook: "fast" or "slow" (a book of the model's own, where there is one), "fast-100", or your own
            {threshold: rate} (a rate of k skips k - 1 evaluations; higher = faster); `otherwise` is the rate
            beyond the last threshold.
        native: number of evaluations your own codebook is made for; named ones know theirs. Other run lengths
            scale rates with N and thresholds with 1 / N, for the distance is one per evaluation.
        otherwise: rate beyond the last threshold of your own codebook (1 = compute every evaluation).
        moreg: motion regularisation: False, True (the model's own constants where it has some, else the
            reference's), or a `MoReg`.
        depth: which block is measured, 0 = first, 1 = last.
        over: "lead" = the conditional branch decides; "all" = pool all branches and samples (reference).
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    codebook: str | dict[float, int] = "fast"
    native: int = 30
    otherwise: int = 1
    moreg: bool | MoReg = False
    depth: float = 0.5
    over: Literal["lead", "all"] = "lead"
    cfg: bool = False

    citation: ClassVar[str] = "AdaCache (ICCV 2025), https://arxiv.org/abs/2411.02397"

    def __post_init__(self) -> None:
        require(0 <= self.depth <= 1, "adacache.depth", self.depth, "0 to 1")
        is_moreg = isinstance(self.moreg, (bool, MoReg))
        require(is_moreg, "adacache.moreg", self.moreg, "False, True or a MoReg")
        if isinstance(self.codebook, str) and self.codebook not in BOOKS:
            raise unknown("adacache codebook", self.codebook, BOOKS)
        require(self.native >= 1, "adacache.native", self.native, "evaluations >= 1")
        self.policy("", self.native)  # checks thresholds, rates, depth

    def _book(self, model: str) -> Book:
        if isinstance(self.codebook, str):
            return MODEL_BOOKS.get((model, self.codebook), BOOKS[self.codebook])
        entries = tuple(sorted((float(threshold), int(rate)) for threshold, rate in self.codebook.items()))
        window = (round(4 / 30 * self.native), round(26 / 30 * self.native))
        return Book(self.native, entries, self.otherwise, window)

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        book = scale(self._book(model), num_evaluations)
        probe = AttentionResidual(self.depth)
        moreg = None
        if self.moreg:
            options = MOREG.get(model, MoReg()) if self.moreg is True else self.moreg
            window = options.window
            first, last = book.window if window is None else (round(f * num_evaluations) for f in window)
            motion = MotionRatio(probe, self.over, options.strides)
            moreg = MotionRegularisation(
                first, last, motion, options.pivot, options.exponent, options.divisor, options.gradient
            )
        when = Codebook(book.entries, book.otherwise, RelativeChange(probe, self.over), moreg)
        policy = Policy((Rule(Span(), when, Hold()),), "adacache+moreg" if self.moreg else "adacache")
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy


def scale(book: Book, num_evaluations: int) -> Book:
    """The book for another number of evaluations: gaps cover the same part of the run, distances are per
    evaluation.
    """
    if num_evaluations == book.native:
        return book
    ratio = num_evaluations / book.native
    entries = tuple((threshold / ratio, max(1, round(rate * ratio))) for threshold, rate in book.entries)
    # a rate of 1 means "skip nothing here" at every length
    entries = tuple(
        (t, 1 if rate == 1 else r) for (t, r), (_, rate) in zip(entries, book.entries, strict=True)
    )
    otherwise = 1 if book.otherwise == 1 else max(1, round(book.otherwise * ratio))
    window = (round(book.window[0] * ratio), round(book.window[1] * ratio))
    return Book(num_evaluations, entries, otherwise, window)
