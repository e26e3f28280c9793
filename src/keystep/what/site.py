"""WHAT can be skipped: sites, and the probe points at which change is measured.

A site is something whose value can be predicted instead of computed. Everything cached is a delta:
`value = base + predict(history of deltas)`. The base is zero for attention outputs, the span's input for a
span, and the conditional output for the unconditional branch.

Sites nest: branch > span > attention. What lies inside a skipped site is not visited and its state stands
still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require


@dataclass(frozen=True)
class Attention:
    """Outputs of attention modules, after the output projection and before the gate. Base: zero.

    Attributes:
        kinds: which of the model's attention kinds (`ModelSpec.attention`: `"spatial"`, `"temporal"`,
            `"joint"`, `"self"`, `"cross"` ...); empty = every kind except `"cross"`.
    """

    kinds: tuple[str, ...] = ()
    level: ClassVar[int] = 2

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return "attention" + (f"[{','.join(self.kinds)}]" if self.kinds else "")

    def covers(self, kind: str) -> bool:
        """Whether attention modules of this kind belong to the site."""
        return kind in self.kinds if self.kinds else kind != "cross"


@dataclass(frozen=True)
class Span:
    """The residual of consecutive blocks taken as one: stack output minus the input of block `start`.

    Attributes:
        start: index of the first block inside the span; blocks before it always run (0 = the whole stack).
    """

    start: int = 0
    level: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(self.start >= 0, "Span.start", self.start, "an index >= 0")

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return "span" + (f"[{self.start}:]" if self.start else "")


@dataclass(frozen=True)
class Branch:
    """The model's output for one guidance branch. Base: the conditional output of the same evaluation.

    Attributes:
        name: the branch that is predicted; `"cond"` leads and cannot be skipped.
    """

    name: str = "uncond"
    level: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require(self.name != "cond", "Branch.name", self.name, "a branch other than the leading 'cond'")

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return f"branch[{self.name}]"


Site = Attention | Span | Branch


@dataclass(frozen=True)
class AttentionResidual:
    """Probe: the gated self-attention residual of one block, `x_after_attention - x_block_input`.

    Attributes:
        depth: which block, as a fraction of the block list (0.5 = the middle, block 13 of 28).
    """

    depth: float = 0.5

    def __post_init__(self) -> None:
        require(0 <= self.depth <= 1, "AttentionResidual.depth", self.depth, "0 to 1")


@dataclass(frozen=True)
class PrefixResidual:
    """Probe: the residual of the blocks before block `stop`, known before the rest of the stack runs."""

    stop: int = 1

    def __post_init__(self) -> None:
        require(self.stop >= 1, "PrefixResidual.stop", self.stop, "an index >= 1")


Probe = AttentionResidual | PrefixResidual
