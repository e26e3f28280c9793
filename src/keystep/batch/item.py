"""What is asked for, and what was made of it: plain data, a line of JSON each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter

ID_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"  # ids are file names, and those that begin with . are ours
ID_RULE = "1 to 100 letters, digits, '.', '_' and '-', the first a letter, a digit or '_'"

_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One video that is asked for; None leaves the pipeline's own default.

    Attributes:
        id: names the item and its file; letters, digits, `.`, `_`, `-`, at most 100.
        prompt: what the video shows.
        method: name of a method; `none` accelerates nothing.
        options: of the method.
        seed: of the initial noise.
        negative_prompt: what guidance moves away from.
        steps, frames, height, width: counts and pixels.
        resolution, aspect: names of sizes, where the model has such.
        seconds: length, where the model has lengths in seconds.
        guidance: guidance scale; 1 or less = off.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(pattern=ID_PATTERN)]
    prompt: Annotated[str, Field(min_length=1)]
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    negative_prompt: str | None = None
    steps: _Count | None = None
    frames: _Count | None = None
    height: _Count | None = None
    width: _Count | None = None
    resolution: str | None = None
    aspect: str | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None

    @property
    def shape(self) -> tuple[Any, ...]:
        """What a worker is set up for: items that agree in it follow one another at no cost."""
        return (
            self.height, self.width, self.frames, self.resolution, self.aspect, self.seconds, self.steps,
        )  # fmt: skip


FIELDS = tuple(f.name for f in fields(Item))


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What making one video took.

    Attributes:
        loop_s: seconds of the denoising loop.
        total_s: seconds of the pipeline's call, text encoder and decoder included.
        num_evaluations: evaluations of the model; None for a plain video.
        key_steps: those in which nothing was skipped, counted from 1; None for a plain video.
        peak_cache_bytes: most bytes held for reuse.
        notes: what the method and the pipeline had to say.
    """

    loop_s: float
    total_s: float
    num_evaluations: int | None = None
    key_steps: tuple[int, ...] | None = None
    peak_cache_bytes: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Product:
    """A finished video: the bytes of its file, and what it took."""

    video: bytes
    figures: Figures


@dataclass(frozen=True, kw_only=True)
class Record(Item, Figures):
    """A line of the manifest: an item that is finished.

    Attributes:
        settings: what all items of the batch share: model, precision, ...
        file: the video, relative to the folder of the batch.
        sha256: of the file.
        num_bytes: its size.
        worker: who made it, `host:process`.
        tries: how many it took; 1 = the first was good.
        finished: when, UTC, ISO 8601.
    """

    settings: dict[str, Any]
    file: str
    sha256: str
    num_bytes: int
    worker: str
    tries: int
    finished: str

    @property
    def asked(self) -> dict[str, Any]:
        """What the video depends on."""
        return {name: getattr(self, name) for name in FIELDS} | {"settings": self.settings}


ITEM: TypeAdapter[Item] = TypeAdapter(Item)
RECORD: TypeAdapter[Record] = TypeAdapter(Record)
