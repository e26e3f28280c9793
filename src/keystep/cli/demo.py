"""`keystep demo`: the methods on the tiny model that ships with the package, in a minute on a laptop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.metrics.outcome import Outcome, Summary
    from keystep.metrics.quality import Video

METHODS = ("auto", "fastercache", "adacache", "adacache+moreg")
PROMPT = "a large red circle moving left quickly on a dark background"
NUM_STEPS, NUM_QUICK_STEPS = 30, 12
NUM_ROUNDS, NUM_QUICK_ROUNDS = 5, 1
BUDGET_S = 40.0  # no further timing after this: with all the rest a slow machine stays under 90 s
SIDE_BY_SIDE = "side-by-side.mp4"
TITLE = "keystep demo"
LEAD = (
    "One prompt and one seed, generated plainly and with four methods that reuse work between evaluations, "
    "by the tiny model that ships with keystep."
)


def demo(
    out: options.OutFolder = Path("keystep-demo"),
    prompt: Annotated[
        str, typer.Option(help="A scene in the words of the tiny model; the default shows how.")
    ] = PROMPT,
    seed: options.Seed = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help=f"{NUM_QUICK_STEPS} steps and one timed pair instead of {NUM_STEPS} and five."
        ),
    ] = False,
) -> None:
    """Make one tiny video plainly and with four methods; compare speed, compute and quality.

    Writes an mp4 of each, side-by-side.mp4, results.json, results.md and report.html.
    """
    from keystep.cli.console import print_path, print_summaries
    from keystep.media import check_writable

    check_writable(out, is_folder=True)
    num_steps, num_rounds = (NUM_QUICK_STEPS, NUM_QUICK_ROUNDS) if quick else (NUM_STEPS, NUM_ROUNDS)
    summaries = _write(out, _measure(prompt, seed, num_steps, num_rounds), num_steps)
    print_summaries(summaries)
    for note in _notes(summaries):
        typer.echo(note)
    print_path("open", out / "report.html")


def _measure(prompt: str, seed: int, num_steps: int, num_rounds: int) -> list[tuple[Outcome, Video]]:
    from keystep.cli import pipeline
    from keystep.cli.progress import GenerationProgress
    from keystep.methods import build
    from keystep.metrics.experiment import Experiment

    methods = {name: build(name) for name in METHODS}
    pipe = pipeline.load_pipeline(pipeline.TOY, options.Dtype.float32, "cpu")
    with _one_thread(), GenerationProgress((1 + len(methods)) * (1 + num_rounds)) as progress:
        experiment = Experiment(
            pipe,
            methods,
            {"num_inference_steps": num_steps},
            num_rounds=num_rounds,
            budget_s=BUDGET_S,
            progress=progress,
        )
        return experiment.measure(prompt, seed, METHODS)


@contextmanager
def _one_thread() -> Iterator[None]:
    # Threads that wait for one another on a busy machine cost this small model far more than they save.
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _write(out: Path, results: Sequence[tuple[Outcome, Video]], num_steps: int) -> list[Summary]:
    from keystep.cli.results import save_video, summarise_methods, write_results
    from keystep.media import choose_scale, side_by_side, upscale, write_mp4

    outcomes = [save_video(out, outcome, video, options.DEFAULT_FPS) for outcome, video in results]
    summaries = summarise_methods(outcomes)
    labels = [_label(summary) for summary in summaries]
    videos = [upscale(video, choose_scale(video)) for _, video in results]
    write_mp4(out / SIDE_BY_SIDE, side_by_side(videos, labels), options.DEFAULT_FPS)
    settings = {"model": "toy", "steps": num_steps, "prompt": outcomes[0].prompt, "seed": outcomes[0].seed}
    return write_results(
        out,
        outcomes,
        title=TITLE,
        lead=LEAD,
        settings=settings,
        fps=options.DEFAULT_FPS,
        notes=_notes(summaries),
    )


def _label(summary: Summary) -> str:
    from keystep.report import format_row
    from keystep.report.table import format_psnr

    if summary.psnr is None:
        return summary.method
    unit = " dB" if isfinite(summary.psnr) else ""
    return f"{summary.method}\n{format_row(summary)['speed-up'].main} · {format_psnr(summary.psnr)}{unit}"


def _notes(summaries: Sequence[Summary]) -> list[str]:
    num_pairs = max((summary.speedup.num for summary in summaries if summary.speedup), default=0)
    pairs = f"{num_pairs} timed pair{'s' if num_pairs > 1 else ''}"
    return [
        f"Speed-up: median of {pairs}, one prompt, one seed, one thread: this shows how the methods work and "
        "is no benchmark.",
        "On so small a model fixed costs eat part of the speed-up: the compute ratio says what was skipped.",
    ]
