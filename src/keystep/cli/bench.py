"""`keystep bench`: every method and its rivals under one protocol; can be interrupted and goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.lab.book import Book
    from keystep.lab.contestant import Contestant, Subject
    from keystep.lab.run import Amount

PARTS = "quality,speed,robustness"
RIVALS = "fewer-steps,diffusers,cache-dit"
UNFINISHED = "{part} on {model} was ended after {limit:.0f} s; the same command goes on"


def bench(
    out: options.OutFolder,
    models: Annotated[
        str,
        typer.Option(
            help="Comma-separated: models with weights by name, folder or hub id, and random ones such as "
            "wan-wide (default: all that ship, and all random ones)."
        ),
    ] = "",
    parts: Annotated[str, typer.Option(help=f"Comma-separated parts, of {PARTS}.")] = PARTS,
    methods: Annotated[str, typer.Option(help="Comma-separated names of our methods (default: all).")] = "",
    rivals: Annotated[str, typer.Option(help=f"Comma-separated, of {RIVALS}; none = no rivals.")] = RIVALS,
    quick: Annotated[bool, typer.Option("--quick", help="A look in less than five minutes.")] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Prompts, a line each, for models that bring none; the last one is for calibration."
        ),
    ] = None,
    num_prompts: Annotated[int | None, typer.Option(min=1, help="Use the first so many prompts.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Comma-separated seeds (default: 0,1).")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Timed pairs of each method (default: 5).")] = None,
    steps: options.Steps = None,
    threads: Annotated[int, typer.Option(min=1, help="Processor threads: one leaves least to chance.")] = 1,
    dtype: options.DtypeOption = options.Dtype.float32,
    device: options.Device = "cpu",
    load: options.LoadOptions = None,
) -> None:
    """Measure every method beside its rivals: quality, realised speed, memory, robustness.

    Every row is kept as it is measured: run the same command again to go on after an interrupt.
    """
    from keystep.cli import pipeline
    from keystep.cli.prompts import parse_seeds, read_prompts
    from keystep.lab.run import FULL, QUICK
    from keystep.media import check_writable

    check_writable(out, is_folder=True)
    pipeline.check_device(device)
    amount = QUICK if quick else FULL
    given = {
        "num_steps": steps, "num_prompts": num_prompts, "num_pairs": pairs,
        "seeds": None if seeds is None else tuple(parse_seeds(seeds)),
    }  # fmt: skip
    amount = replace(amount, **{name: value for name, value in given.items() if value is not None})
    texts = [] if prompts is None else read_prompts(prompts)
    loading = {"dtype": dtype, "device": device, "load": load or []}
    subjects = find_subjects(_split(models), loading, texts, quick)
    chosen = _split(parts, "--parts", PARTS.split(","))
    contestants, notes = _choose(_split(methods), _split(rivals, "--rivals", [*RIVALS.split(","), "none"]))
    settings = {
        "steps": amount.num_steps, "pairs": amount.num_pairs, "threads": threads, "dtype": dtype.value,
        "device": device, "load": load or None, "converged": amount.has_converged,
    }  # fmt: skip
    _run(out, subjects, chosen, contestants, amount, settings, notes)


def _split(text: str, option: str = "", allowed: Sequence[str] = ()) -> list[str]:
    from keystep.errors import unknown

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if option and name not in allowed:
            raise unknown(option, name, allowed)
    if option and not names:
        raise ValueError(f"{option}: given {text!r}, allowed: some of {', '.join(allowed)}")
    return names


def _choose(methods: Sequence[str], rivals: Sequence[str]) -> tuple[list[Contestant], list[str]]:
    from keystep.errors import unknown
    from keystep.lab.grid import own_methods
    from keystep.lab.run import choose_contestants

    known = {contestant.name.method for contestant in own_methods()}
    for method in methods:
        if method not in known:
            raise unknown("method", method, known)
    return choose_contestants(methods, [name for name in rivals if name != "none"])


def find_subjects(
    models: Sequence[str], loading: Mapping[str, Any], prompts: Sequence[str], is_quick: bool
) -> list[Subject]:
    """The models to measure on, not loaded yet.

    Args:
        models: names; none = all that ship, and the random ones (a quick look: one of each width).
        loading: `dtype`, `device` and `load` of the command line, for models with weights.
        prompts: of models that bring none; may be empty without such models.
        is_quick: whether few models are to be enough.

    Raises:
        ValueError: an unknown model, or a model without prompts.
    """
    import torch

    from keystep.lab.shapes import NARROW, WIDE, random_subjects
    from keystep.lab.trained import shipped_models

    random = random_subjects(loading["device"], getattr(torch, loading["dtype"].value))
    if not models:
        few = [f"wan-{NARROW}", f"wan-{WIDE}"]
        models = [*shipped_models(), *(few if is_quick else random)]
    return [random[name] if name in random else _with_weights(name, loading, prompts) for name in models]


def _with_weights(name: str, loading: Mapping[str, Any], prompts: Sequence[str]) -> Subject:
    from keystep.cli import pipeline
    from keystep.lab.trained import other_subject, shipped_models, shipped_subject

    pipeline.check_model(name)
    options_ = pipeline.read_load_options(name, loading["load"])

    def load() -> Any:
        return pipeline.load_pipeline(name, loading["dtype"], loading["device"], options_)

    if name in shipped_models():
        return shipped_subject(name, load)
    if len(prompts) < 3:
        raise ValueError(f"--prompts: {name} brings no prompts; give a file with three or more")
    return other_subject(name, load, prompts, pipeline.choose_fps(name, None))


def _run(
    out: Path,
    subjects: Sequence[Subject],
    parts: Sequence[str],
    contestants: Sequence[Contestant],
    amount: Amount,
    settings: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    import torch

    from keystep.cli.console import print_path
    from keystep.cli.results import describe_machine
    from keystep.lab.book import Book
    from keystep.lab.page import publish

    book = Book(out, settings, {**describe_machine(), "commit": _find_commit()})
    _silence()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(settings["threads"])
    remarks = list(notes)
    try:
        for subject in subjects:
            remarks += _measure(book, subject, parts, contestants, amount)
            publish(book, options.DEFAULT_FPS, remarks)
    finally:
        torch.set_num_threads(num_threads)
    for remark in remarks:
        typer.echo(remark)
    print_path("open", out / "report.html")


def _measure(
    book: Book, subject: Subject, parts: Sequence[str], contestants: Sequence[Contestant], amount: Amount
) -> list[str]:
    """Every part on one model; returns remarks on parts that ran out of time."""
    from keystep.cli.console import err_console
    from keystep.lab.contestant import Bench
    from keystep.lab.run import TimedWatcher, run_part

    remarks = []
    pipe = subject.load()
    bench = Bench(subject, pipe, amount.num_steps or subject.num_steps)
    with err_console().status(subject.name) as status:
        for part in (part for part in parts if part in subject.parts):
            limit_s = amount.limits_s.get(part)
            watcher = TimedWatcher(lambda label, part=part: status.update(f"{part}: {label}"), limit_s)
            run_part(part, bench, contestants, amount, book, watcher)
            if watcher.was_over:
                remarks.append(UNFINISHED.format(part=part, model=subject.name, limit=limit_s))
    return remarks


def _find_commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _silence() -> None:
    """Rivals talk; what matters of it is in the results."""
    import warnings

    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    warnings.simplefilter("ignore")
