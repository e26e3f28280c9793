"""`keystep tune`: find the settings of a method that give most for the compute, on prompts of yours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.methods.knobs import Knob

TRIALS = 40
NEEDED = ("optuna", "matplotlib")


class Likeness(str, Enum):
    """Which PSNR over the videos the search is about."""

    mean = "mean"
    low = "low"


def tune(
    model: options.Model,
    prompts: options.PromptFile,
    out: options.OutFolder,
    method: options.Method = None,
    assignments: options.Assignments = None,
    policy: options.PolicyFile = None,
    knob: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=RANGE",
            help="Turn this one instead of the method's usual ones: NAME=LOW:HIGH, NAME=LOW:HIGH:log or "
            "NAME=VALUE,VALUE; in a policy that spells its rules out, NAME is a path such as "
            "rules.0.when.threshold; repeat for more.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Settings to try in all, those of earlier runs too.")
    ] = TRIALS,
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="Minutes after which no further setting is begun.")
    ] = None,
    likeness: Annotated[
        Likeness, typer.Option(help="PSNR over the videos: their mean, or their 10th percentile (low).")
    ] = Likeness.mean,
    at_psnr: Annotated[
        float | None, typer.Option(help="Choose the fastest that has so many dB (default: the front's bend).")
    ] = None,
    at_compute: Annotated[
        float | None, typer.Option(min=0, help="Choose the likest whose compute ratio is at most this.")
    ] = None,
    seeds: options.Seeds = "0",
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    frames: options.Frames = None,
    height: options.Height = None,
    width: options.Width = None,
    resolution: options.Resolution = None,
    aspect: options.Aspect = None,
    seconds: options.Seconds = None,
    guidance: options.Guidance = None,
    dtype: options.DtypeOption = options.Dtype.float32,
    device: options.Device = "cpu",
    offload: options.Offload = False,
    load: options.LoadOptions = None,
) -> None:
    """Search a method's settings for little compute and videos like the plain ones; write policy files.

    Every trial is kept: run the same command again to go on, with more --trials, or to choose another point.
    """
    from keystep.cli import pipeline
    from keystep.cli.method_options import build_named, read_method
    from keystep.cli.prompts import parse_seeds, read_prompts
    from keystep.media import check_writable

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)}: not installed; pip install '.[tune]' in keystep's sources")
    check_writable(out, is_folder=True)
    pipeline.check_model(model)
    items = [(prompt, seed) for prompt in read_prompts(prompts) for seed in parse_seeds(seeds)]
    name, given = read_method(method, assignments or (), policy)
    build_named(name, given)  # a wrong option is named before anything is loaded
    space = find_space(name, given, knob or ())
    pipeline.check_device(device)
    words = {
        "negative-prompt": negative_prompt, "steps": steps, "guidance": guidance, "frames": frames,
        "height": height, "width": width, "resolution": resolution, "aspect": aspect, "seconds": seconds,
    }  # fmt: skip
    pipeline.check_words(model, words)
    loading = pipeline.read_load_options(model, load or (), words) | pipeline.offloading(offload)
    settings = {
        "model": model, "load": loading or None, **words, "dtype": dtype.value, "items": items,
        "method": name, "options": given, "knobs": {key: repr(value) for key, value in space.items()},
        "likeness": likeness.value,
    }  # fmt: skip
    limit_s = None if time_limit is None else 60 * time_limit
    _run(out, settings, space, words, device, trials, limit_s)
    _finish(out, settings, at_psnr, at_compute)


def find_space(name: str, given: Mapping[str, Any], knobs: Sequence[str]) -> dict[str, Knob]:
    """The knobs to turn: those named on the command line, else the method's, less what is fixed by hand.

    Raises:
        ValueError: there are none, or one is no option of the method.
    """
    from keystep.cli.method_options import build_named
    from keystep.methods.knobs import Choice, knobs_of
    from keystep.tune.space import parse_knobs, with_values

    space = parse_knobs(knobs) or {key: knob for key, knob in knobs_of(name).items() if key not in given}
    if not space:
        raise ValueError(f"--knob: {name!r} has no knobs of its own left to turn; name one, NAME=LOW:HIGH")
    for key, knob in space.items():
        for end in knob.values if isinstance(knob, Choice) else (knob.low, knob.high):
            build_named(name, with_values(given, {key: end}))
    return space


def _run(
    out: Path,
    settings: Mapping[str, Any],
    space: Mapping[str, Knob],
    words: Mapping[str, Any],
    device: str,
    num_trials: int,
    time_limit_s: float | None,
) -> None:
    from keystep.cli import pipeline
    from keystep.cli.method_options import build_named
    from keystep.cli.progress import GenerationProgress
    from keystep.tune import PlainVideos, Search, Task, with_values

    search, plain = Search(out, settings), PlainVideos(out / "plain")
    num_missing = search.count_missing(num_trials)
    if not num_missing:
        return
    pipe = pipeline.load_pipeline(
        settings["model"], options.Dtype(settings["dtype"]), device, settings["load"] or {}
    )
    arguments = pipeline.fit_arguments(type(pipe), words)
    name, given, items = settings["method"], settings["options"], settings["items"]
    pipeline.check_methods(pipe, [build_named(name, given)])
    num_plain = sum(not plain.has(*item) for item in items)
    num_default = 0 if search.tried else len(items)
    with GenerationProgress(num_plain + num_default + num_missing * len(items)) as progress:
        task = Task(
            pipe, arguments, items, lambda values: build_named(name, with_values(given, values)),
            space, plain, progress,
        )  # fmt: skip
        search.run(task, num_trials, time_limit_s)


def _finish(out: Path, settings: Mapping[str, Any], at_psnr: float | None, at_compute: float | None) -> None:
    """Write everything that follows from what was tried, print the front, choose."""
    from keystep.cli.console import print_path, print_table
    from keystep.cli.results import describe_machine
    from keystep.tune import Search, choose, find_front, with_values
    from keystep.tune.page import CHOSEN, HEADINGS, format_row, name_of, write_pages, write_policy

    def policy_of(values: Mapping[str, Any]) -> dict[str, Any]:
        return {"method": settings["method"], **with_values(settings["options"], values)}

    search = Search(out, settings)
    front = find_front(search.tried)
    shown = {name: str(value) for name, value in settings.items() if value is not None}
    notes = [f"{len(search.tried)} settings tried", *(f"refused: {error}" for error in search.errors)]
    write_pages(out, search.tried, front, policy_of, {**shown, **describe_machine()}, notes)
    print_table(HEADINGS, [format_row(one) for one in front], "front")
    chosen = choose(front, at_psnr, at_compute)
    write_policy(out / CHOSEN, policy_of(chosen.values))
    typer.echo(f"chosen: {name_of(chosen)}: {', '.join(format_row(chosen)[1:])}")
    print_path("open", out / "report.html")
    print_path(f"use it with `keystep generate --model {settings['model']} --policy`", out / CHOSEN)
