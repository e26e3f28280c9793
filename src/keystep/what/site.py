"""WHAT can be skipped: sites, and the probe points at which change is measured.

A site is something whose value can be predicted instead of computed. Everything cached is a delta:
`value = base + predict(history of deltas)`. The base is zero for parts of blocks, the span's input for a
span, zero or the latent for the model's output, and the conditional output for the unconditional branch.

Sites nest: branch > output > span > parts of blocks. What lies inside a skipped site is not visited and its
state stands still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from keystep.errors import require


def _in_brackets(*words: str) -> str:
    """`[a,b]` of the words that are not empty; nothing of none."""
    given = [word for word in words if word]
    return f"[{','.join(given)}]" if given else ""


@dataclass(frozen=True)
class Attention:
    """Outputs of attention modules, after the output projection and before the gate. Base: zero.

    Attributes:
        kinds: which of the model's attention kinds (`ModelSpec.attention`: `"spatial"`, `"temporal"`,
            `"joint"`, `"self"`, `"cross"` ...); `"cross"` covers `"spatial-cross"` too; empty = every kind
            but those of cross-attention.
    """

    kinds: tuple[str, ...] = ()
    level: ClassVar[int] = 3
    part: ClassVar[str] = "attention"

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return "attention" + _in_brackets(*self.kinds)

    def covers(self, kind: str, block: int) -> bool:
        """Whether attention modules of this kind belong to the site, in whatever block."""
        del block
        return self.covers_kind(kind)

    def covers_kind(self, kind: str) -> bool:
        """Whether attention modules of this kind belong to the site."""
        last_word = kind.rpartition("-")[2]
        return kind in self.kinds or last_word in self.kinds if self.kinds else last_word != "cross"


@dataclass(frozen=True)
class Mlp:
    """Outputs of the blocks' MLPs (feed-forward networks), before the gate. Base: zero.

    Attributes:
        kinds: which of the model's kinds of blocks (`ModelSpec.mlp`); empty = all.
        first, last: blocks counted from 0 in the order in which they run, inclusive; last = None is the end.
    """

    kinds: tuple[str, ...] = ()
    first: int = 0
    last: int | None = None
    level: ClassVar[int] = 3
    part: ClassVar[str] = "mlp"

    def __post_init__(self) -> None:
        require(self.first >= 0, "Mlp.first", self.first, "a block >= 0")
        is_range = self.last is None or self.last >= self.first
        require(is_range, "Mlp.last", self.last, f"None or a block >= first={self.first}")

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        is_part = self.first > 0 or self.last is not None
        blocks = f"{self.first}:{'' if self.last is None else self.last}" if is_part else ""
        return "mlp" + _in_brackets(*self.kinds, blocks)

    def covers(self, kind: str, block: int) -> bool:
        """Whether the MLP of a block belongs to the site."""
        return self.covers_kind(kind) and block >= self.first and (self.last is None or block <= self.last)

    def covers_kind(self, kind: str) -> bool:
        """Whether MLPs in blocks of this kind may belong to the site."""
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True)
class Span:
    """The residual of consecutive blocks taken as one: its last block's output minus its first one's input.

    Attributes:
        start: index of the first block inside the span; blocks before it always run (0 = the whole stack).
        num_after: blocks at the end of the stack that lie behind the span and always run.
    """

    start: int = 0
    num_after: int = 0
    level: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.start >= 0, "Span.start", self.start, "an index >= 0")
        require(self.num_after >= 0, "Span.num_after", self.num_after, "a number of blocks >= 0")

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        end = f"-{self.num_after}" if self.num_after else ""
        return "span" + (f"[{self.start or ''}:{end}]" if self.start or end else "")


@dataclass(frozen=True)
class Output:
    """The model's whole output, of each guidance branch by itself: a skip calls nothing of the model.

    Attributes:
        base: `"zero"`, or `"latent"`: what is cached is the output minus the latent the model was given.
    """

    base: Literal["zero", "latent"] = "zero"
    level: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(self.base in ("zero", "latent"), "Output.base", self.base, "'zero' or 'latent'")

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return "output"


@dataclass(frozen=True)
class Guided:
    """The guided output of all branches together, as a prediction of the data (x0-hat), where the scheduler
    takes it: a skip calls nothing of the model, whatever the model is. Base: zero.

    Attributes:
        correct: move the latent, at each computed evaluation, to where it would be had the skipped ones used
            outputs interpolated between the computed ones. Costs no evaluation.
    """

    correct: bool = True
    level: ClassVar[int] = 1

    @property
    def label(self) -> str:
        """Name of the rule on this site in traces."""
        return "guided"


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


Part = Attention | Mlp
Site = Part | Span | Output | Guided | Branch


@dataclass(frozen=True)
class BlockProbe:
    """Probe inside one block.

    Attributes:
        depth: which block, as a fraction of the block list (0.5 = the middle, block 13 of 28).
        kind: which kind of block (a key of `ModelSpec.residual`); empty = the first kind there.
    """

    depth: float = 0.5
    kind: str = ""

    def __post_init__(self) -> None:
        require(0 <= self.depth <= 1, f"{type(self).__name__}.depth", self.depth, "0 to 1")


@dataclass(frozen=True)
class AttentionResidual(BlockProbe):
    """Probe: the gated self-attention residual of one block, `x_after_attention - x_block_input`."""


@dataclass(frozen=True)
class RestResidual(BlockProbe):
    """Probe: what one block adds after its self-attention, `x_block_output - x_after_attention`."""


@dataclass(frozen=True)
class PrefixResidual:
    """Probe: the residual of the blocks before block `stop`, known before the rest of the stack runs."""

    stop: int = 1

    def __post_init__(self) -> None:
        require(self.stop >= 1, "PrefixResidual.stop", self.stop, "an index >= 1")


@dataclass(frozen=True)
class SpanInput:
    """Probe: the hidden state that goes into the span, after the blocks before it."""


@dataclass(frozen=True)
class StackInput:
    """Probe: the hidden state that goes into the first block of all."""


@dataclass(frozen=True)
class AttentionInput:
    """Probe: what the attention of the span's first block is given (normalised and modulated), known before
    anything of the span runs.
    """


@dataclass(frozen=True)
class TimeEmbedding:
    """Probe: the embedded timestep (`ModelSpec.time`), known before anything of the span runs."""


@dataclass(frozen=True)
class Latent:
    """Probe: the latent the model is given."""


@dataclass(frozen=True)
class Prediction:
    """Probe: the model's output, where it was computed."""


@dataclass(frozen=True)
class FilteredLatent:
    """Probe: the latent after the filter that would denoise it best at its noise level, were it an average
    video; see `what/spectrum.py`. Channels of conditions are left out.

    Attributes:
        power: spectral power of an average video at frequency f: f ** -power (higher = smoother).
    """

    power: float = 3.0

    def __post_init__(self) -> None:
        require(self.power > 0, "FilteredLatent.power", self.power, "an exponent > 0")


@dataclass(frozen=True)
class Forecast:
    """Probe: how far the forecast of the guided output is from what was computed."""


@dataclass(frozen=True)
class Correction:
    """Probe: how far the latent is moved where a skipped stretch ends."""


BeforeSpan = PrefixResidual | SpanInput | StackInput | AttentionInput | TimeEmbedding | FilteredLatent
Probe = BlockProbe | BeforeSpan | Latent | Prediction | Forecast | Correction
