"""What `keystep tune` may turn: the knobs of each method and the range that is worth a look.

Ranges reach from a little below the most careful published setting to where videos fall apart. Thresholds are
of relative changes, so one range serves all models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keystep.errors import require
from keystep.methods.cfg import CFG


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones if both are.

    Attributes:
        low, high: the ends.
        is_log: whether a factor counts alike anywhere, as for thresholds.
    """

    low: float
    high: float
    is_log: bool = False

    def __post_init__(self) -> None:
        require(self.low < self.high, "Range.high", self.high, f"a number above low={self.low}")
        require(not self.is_log or self.low > 0, "Range.low", self.low, "a number > 0 on a logarithmic scale")

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


@dataclass(frozen=True)
class Choice:
    """One of some values: whatever JSON can hold."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        require(len(self.values) > 1, "Choice.values", self.values, "two or more values")


Knob = Range | Choice

_CODEBOOKS = Choice(
    (
        "slow",
        "fast",
        {"0.1": 3, "0.3": 2},
        {"0.2": 3, "0.6": 2},
        {"0.1": 4, "0.3": 3, "0.5": 2},
        {"0.2": 4, "0.5": 3, "1.0": 2},
        {"0.1": 8, "0.3": 6, "10.0": 2},
        {"0.2": 6, "10.0": 3},
    )
)
_LIMIT = Choice((None, 1, 2, 4))
KNOBS: dict[str, dict[str, Knob]] = {
    "auto": {"tolerance": Range(0.01, 0.3, is_log=True), "correct": Choice((True, False))},
    "fastercache": {
        "start": Range(-0.25, 0.3),
        "cfg_every": Range(2, 12),
        "attention_every": Range(2, 4),
    },
    "adacache": {"codebook": _CODEBOOKS, "depth": Range(0.2, 0.8)},
    "adacache+moreg": {"codebook": _CODEBOOKS, "depth": Range(0.2, 0.8)},
    "pab": {"stretch": Range(0.5, 4.0, is_log=True), "mlp": Choice((True, False))},
    "teacache": {"threshold": Range(0.02, 0.8, is_log=True)},
    "fbcache": {"threshold": Range(0.01, 0.8, is_log=True), "max_consecutive": _LIMIT},
    "dbcache": {
        "threshold": Range(0.01, 0.8, is_log=True),
        "warmup": Range(2, 10),
        "max_consecutive": _LIMIT,
        "order": Range(0, 1),
    },
    "fora": {"interval": Range(2, 8)},
    "taylorseer": {
        "interval": Range(2, 8),
        "warmup": Range(3, 10),
        "order": Range(1, 2),
        "lite": Choice((False, True)),
    },
    "easycache": {"threshold": Range(0.01, 0.6, is_log=True), "warmup": Range(0.05, 0.3)},
    "dicache": {
        "threshold": Range(0.05, 1.2, is_log=True),
        "depth": Range(1, 2),
        "is_relative": Choice((True, False)),
        "retained": Range(0.05, 0.3),
    },
    "seacache": {
        "threshold": Range(0.05, 3.0, is_log=True),
        "order": Range(0, 1),
        "max_consecutive": Choice((None, 2, 3, 5)),
    },
    "magcache": {
        "threshold": Range(0.02, 0.6, is_log=True),
        "max_consecutive": Range(1, 8),
        "retained": Range(0.05, 0.3),
    },
    "static": {"compute": Range(0.15, 0.8)},
}


def knobs_of(method: str) -> dict[str, Knob]:
    """The knobs of a registered method, alone or beside CFG-Cache; none for any other name."""
    return KNOBS.get(method.removesuffix(CFG), {})
