"""What was measured: one row a contestant and, for quality, a video. Failures are rows too."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from keystep.lab.contestant import PLAIN, Name
from keystep.metrics.outcome import TimedPair, encode_numbers
from keystep.metrics.quality import Quality

MAX_ERROR_LENGTH = 300  # characters of a rival's message; some print whole tensors


class Key(NamedTuple):
    """What a row is of; rows with the same key are the same measurement."""

    part: str
    model: str
    contestant: Name
    prompt: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Entry:
    """Who was measured on what.

    Attributes:
        part: `quality`, `speed` or `robustness`.
        model: the subject's name.
        source, method, setting, is_default: the contestant.
        prompt, seed: what was generated; empty and 0 where rows are not of single videos.
        error: what it raised; empty where it ran. All figures of a failed row are empty.
    """

    part: str
    model: str
    source: str
    method: str
    setting: str
    is_default: bool
    prompt: str = ""
    seed: int = 0
    error: str = ""

    @property
    def contestant(self) -> Name:
        """The contestant's name."""
        return Name(self.source, self.method, self.setting)

    @property
    def key(self) -> Key:
        """What it is of."""
        return Key(self.part, self.model, self.contestant, self.prompt, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        return encode_numbers(asdict(self))


@dataclass(frozen=True)
class QualityRow(Entry):
    """A video of a trained model.

    Attributes:
        to_plain: distance to the plain video of the same noise; None for the plain video itself.
        to_converged: PSNR in dB to a converged video of the same noise; None where none was made.
        flops, plain_flops: operations of the denoising loop.
        key_steps: evaluations that cost what a plain one does; num_steps: all of them.
        held_bytes: bytes held beyond what the plain pipeline holds, at the end of a step.
        reading: field -> whether the video shows what the prompt says; empty where nothing can be read.
        uncounted: attention operators missing in the FLOPs of both.
        video: file name of the video, relative to the results; empty if none was written.
    """

    to_plain: Quality | None = None
    to_converged: float | None = None
    flops: int = 0
    plain_flops: int = 0
    key_steps: int = 0
    num_steps: int = 0
    held_bytes: int = 0
    reading: dict[str, bool] | None = None
    uncounted: tuple[str, ...] = ()
    video: str = ""

    @property
    def compute(self) -> float:
        """FLOPs over the plain ones; 1 = nothing was skipped."""
        return self.flops / self.plain_flops

    @property
    def is_idle(self) -> bool:
        """Whether an attached method changed nothing: as many operations, the same video."""
        return self.source != PLAIN and self.flops == self.plain_flops and self.is_identical

    @property
    def is_identical(self) -> bool:
        """Whether the video is the plain one, bit for bit."""
        return self.to_plain is not None and self.to_plain.psnr == float("inf")


@dataclass(frozen=True)
class SpeedRow(Entry):
    """Time and memory of a contestant beside the plain pipeline.

    Attributes:
        pairs: seconds, plain and accelerated in turns.
        cpu_pairs: (plain, accelerated) seconds of processor time in the loop.
        flops, plain_flops, key_steps, num_steps, held_bytes: as in `QualityRow`.
        hidden_state_bytes: one hidden state of the model, all guidance branches of a call.
        peak_bytes, plain_peak_bytes: the accelerator's most allocated memory; 0 without one.
        is_idle: whether it changed nothing.
        num_plain_steps: evaluations of the plain pipeline.
    """

    pairs: tuple[TimedPair, ...] = ()
    cpu_pairs: tuple[tuple[float, float], ...] = ()
    flops: int = 0
    plain_flops: int = 0
    key_steps: int = 0
    num_steps: int = 0
    held_bytes: int = 0
    hidden_state_bytes: int = 0
    peak_bytes: int = 0
    plain_peak_bytes: int = 0
    is_idle: bool = False
    num_plain_steps: int = 0
    uncounted: tuple[str, ...] = ()

    @property
    def compute(self) -> float:
        """FLOPs over the plain ones; 1 = nothing was skipped."""
        return self.flops / self.plain_flops

    @property
    def speedups(self) -> list[float]:
        """Of the denoising loop, a pair each."""
        return [pair.plain_loop_s / pair.loop_s for pair in self.pairs]

    @property
    def speedup(self) -> float:
        """Median over pairs."""
        return median(self.speedups)

    @property
    def realised(self) -> float:
        """Median speed-up times compute; 1 = every skipped operation became saved time."""
        return self.speedup * self.compute


@dataclass(frozen=True)
class RobustnessRow(Entry):
    """What else may happen to a user. Every check holds `ok` or says what went wrong.

    Attributes:
        compute: FLOPs over the plain ones in the first generation; 1 = nothing was skipped.
        checks: name of a check -> its finding.
    """

    compute: float = 1.0
    checks: dict[str, str] | None = None


Row = QualityRow | SpeedRow | RobustnessRow
ROW_TYPES: dict[str, type[Row]] = {"quality": QualityRow, "speed": SpeedRow, "robustness": RobustnessRow}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {part: TypeAdapter(cls) for part, cls in ROW_TYPES.items()}


def read_row(data: dict[str, Any]) -> Row:
    """Read `to_dict` back.

    Raises:
        ValueError: it is no row.
    """
    if data.get("part") not in _ADAPTERS:
        raise ValueError(f"part: given {data.get('part')!r}, allowed: {', '.join(_ADAPTERS)}")
    return _ADAPTERS[data["part"]].validate_python(data)


def describe_error(error: BaseException) -> str:
    """An exception in one line, as a result shows it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 1] + "…"
