"""`keystep compare`: methods against the plain pipeline, on many prompts; can be interrupted and resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.cli.store import Store

TITLE = "keystep compare"
LEAD = "Every method against the plain video of the same prompt and seed."


def compare(
    model: options.Model,
    prompts: options.PromptFile,
    out: options.OutFolder,
    methods: options.Methods = "",
    policy: options.PolicyFiles = None,
    seeds: options.Seeds = "0",
    pairs: options.Pairs = 1,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    frames: options.Frames = None,
    height: options.Height = None,
    width: options.Width = None,
    resolution: options.Resolution = None,
    aspect: options.Aspect = None,
    seconds: options.Seconds = None,
    guidance: options.Guidance = None,
    fps: options.Fps = None,
    dtype: options.DtypeOption = options.Dtype.float32,
    device: options.Device = "cpu",
    offload: options.Offload = False,
    load: options.LoadOptions = None,
) -> None:
    """Compare methods with the plain pipeline over prompts and seeds.

    Finished items stay in the folder: run the same command again to go on after an interrupt.
    """
    from keystep.cli import pipeline
    from keystep.cli.method_options import build_methods
    from keystep.cli.prompts import parse_seeds, read_prompts
    from keystep.media import check_writable

    check_writable(out, is_folder=True)
    pipeline.check_model(model)
    items = [(prompt, seed) for prompt in read_prompts(prompts) for seed in parse_seeds(seeds)]
    built = build_methods(methods, policy or ())
    pipeline.check_device(device)
    words = {
        "negative-prompt": negative_prompt, "steps": steps, "guidance": guidance, "frames": frames,
        "height": height, "width": width, "resolution": resolution, "aspect": aspect, "seconds": seconds,
    }  # fmt: skip
    pipeline.check_words(model, words)
    loading = pipeline.read_load_options(model, load or (), words) | pipeline.offloading(offload)
    settings = {
        "model": model, "load": loading or None, **words,
        "dtype": dtype.value, "device": device, "fps": pipeline.choose_fps(model, fps),
    }  # fmt: skip
    _run(out, items, built, settings, words, pairs)


def _run(
    out: Path,
    items: Sequence[tuple[str, int]],
    methods: Mapping[str, Any],
    settings: Mapping[str, Any],
    words: Mapping[str, Any],
    num_rounds: int,
) -> None:
    from keystep.cli.console import err_console, print_path, print_summaries
    from keystep.cli.results import write_results
    from keystep.cli.store import Store
    from keystep.metrics.experiment import PLAIN

    store = Store(out, settings, {label: repr(method) for label, method in methods.items()}, settings["fps"])
    labels = (PLAIN, *methods)
    missing = {item: [label for label in labels if store.load(*item, label) is None] for item in items}
    num_missing = sum(map(len, missing.values()))
    if num_missing < len(items) * len(labels):
        err_console().print(f"{len(items) * len(labels) - num_missing} items are finished already")
    if num_missing:
        _measure(store, missing, methods, settings, words, num_rounds)
    outcomes = [
        outcome for item in items for label in labels if (outcome := store.load(*item, label)) is not None
    ]
    shown = {name: value for name, value in settings.items() if value is not None}
    summaries = write_results(out, outcomes, title=TITLE, lead=LEAD, settings=shown, fps=settings["fps"])
    print_summaries(summaries)
    print_path("open", out / "report.html")


def _measure(
    store: Store,
    missing: Mapping[tuple[str, int], Sequence[str]],
    methods: Mapping[str, Any],
    settings: Mapping[str, Any],
    words: Mapping[str, Any],
    num_rounds: int,
) -> None:
    from keystep.cli import pipeline
    from keystep.cli.progress import GenerationProgress
    from keystep.metrics.experiment import PLAIN, Experiment

    pipe = pipeline.load_pipeline(
        settings["model"], options.Dtype(settings["dtype"]), settings["device"], settings["load"] or {}
    )
    arguments = pipeline.fit_arguments(type(pipe), words)
    pipeline.check_methods(pipe, methods.values())
    # No method can be judged without the plain video, so that is made again beside any missing one.
    work = {item: [label for label in labels if label != PLAIN] for item, labels in missing.items() if labels}
    experiment = Experiment(pipe, methods, arguments, num_rounds)
    num_generations = sum(experiment.count_generations(len(labels)) for labels in work.values())
    with GenerationProgress(num_generations) as progress:
        experiment = replace(experiment, progress=progress)
        for (prompt, seed), labels in work.items():
            for outcome, video in experiment.measure(prompt, seed, labels):
                store.save(outcome, video)
