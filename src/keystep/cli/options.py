"""Options that several commands share, and checks that need nothing heavy."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_FPS = 8.0  # of models without a name; those with one know theirs


class Dtype(str, Enum):
    """Precision of the weights and of the computation."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


Model = Annotated[
    str,
    typer.Option(help="A name (`keystep models` lists them), a pipeline's folder, or a hub id."),
]
LoadOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--load",
        metavar="KEY=VALUE",
        help="How to load it: source=FOLDER for a named model, or an argument of its from_pretrained; "
        "repeat for more.",
    ),
]
Method = Annotated[
    str | None, typer.Option(help="How to accelerate; `keystep methods` lists the names, `none` = plain.")
]
Methods = Annotated[str, typer.Option(help="Comma-separated names; `keystep methods` lists them.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the method; repeat for more."),
]
PolicyFile = Annotated[
    Path | None,
    typer.Option(help="TOML, YAML or JSON file with a `method` key and its options, instead of --method."),
]
PolicyFiles = Annotated[
    list[Path] | None, typer.Option(help="A policy file, compared under its stem; repeat for more.")
]
Prompt = Annotated[str, typer.Option(help="What the video shows.")]
PromptFile = Annotated[Path, typer.Option(help="Text file with a prompt a line; # begins a comment.")]
NegativePrompt = Annotated[str | None, typer.Option(help="What guidance moves away from.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the initial noise.")]
Seeds = Annotated[str, typer.Option(help="Comma-separated seeds of the initial noise.")]
Pairs = Annotated[
    int, typer.Option(min=0, help="Timed pairs for each method, prompt and seed; 0 = no timing.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Sampling steps (default: the pipeline's own).")]
Frames = Annotated[int | None, typer.Option(min=1, help="Frames (default: the pipeline's own).")]
Height = Annotated[int | None, typer.Option(min=1, help="Pixels (default: the pipeline's own).")]
Width = Annotated[int | None, typer.Option(min=1, help="Pixels (default: the pipeline's own).")]
Resolution = Annotated[str | None, typer.Option(help="Named size, e.g. 720p, where the model has such.")]
Aspect = Annotated[str | None, typer.Option(help="Aspect ratio, height:width, e.g. 9:16; with --resolution.")]
Seconds = Annotated[float | None, typer.Option(min=0, help="Length, where the model has lengths in seconds.")]
Guidance = Annotated[
    float | None,
    typer.Option(min=0, help="Guidance scale; 1 or less = off (default: the pipeline's own)."),
]
Fps = Annotated[
    float | None,
    typer.Option(min=0.1, help="Frames per second of the files (default: the model's own, or 8)."),
]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of weights and computation.")]
Offload = Annotated[
    bool,
    typer.Option("--offload", help="Move each part to the device only while it works: slower, less memory."),
]
Device = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1 ...")]
Ulysses = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that share the tokens of the video (default: all under torchrun)."),
]
CfgParallel = Annotated[
    bool, typer.Option("--cfg-parallel", help="A group of processes for each branch of guidance.")
]
VideoFile = Annotated[Path, typer.Option(help="The video file to write, ending in .mp4.")]
TraceFile = Annotated[Path | None, typer.Option(help="Also write what was computed and reused, as JSON.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for everything that is written; made if absent.")]


def check_mp4(path: Path) -> None:
    """Refuse a video file of another kind.

    Raises:
        ValueError: the name does not end in .mp4.
    """
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"--out: given {str(path)!r}, allowed: a file ending in .mp4")


def to_json(data: Any) -> str:
    """Strict JSON; infinite and undefined numbers become strings."""
    from keystep.metrics.outcome import encode_numbers

    return json.dumps(encode_numbers(data), indent=1, allow_nan=False) + "\n"
