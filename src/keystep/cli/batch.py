"""`keystep batch`: many prompts on many workers; can be interrupted and resumed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.batch import Manifest, Reading, Workers
    from keystep.cli.batch_job import VideoJob

SOME_MISSING = 3  # exit status: the batch went through, but not every line became a video
MAX_TRIES = 3

PromptLines = Annotated[
    Path,
    typer.Argument(
        help="JSON lines: a prompt, and what differs from the options here: id, seed, method, options, "
        "negative_prompt, steps, frames, height, width, guidance ... Or .txt, a prompt a line."
    ),
]
NumWorkers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Default: one a GPU; one on the CPU; what a Ray cluster takes."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Run on a Ray cluster: host:port of its head, auto, or local for one of this machine's own.",
    ),
]
Tries = Annotated[int, typer.Option(min=1, help="How often an item may fail before it is set aside.")]


def batch(
    prompts: PromptLines,
    model: options.Model,
    out: options.OutFolder,
    method: options.Method = None,
    assignments: options.Assignments = None,
    policy: options.PolicyFile = None,
    workers: NumWorkers = None,
    ray: RayAddress = None,
    tries: Tries = MAX_TRIES,
    negative_prompt: options.NegativePrompt = None,
    steps: options.Steps = None,
    seed: options.Seed = 0,
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
    """Generate a video for every line of a file, on several workers that may die.

    Finished items stay in the folder: run the same command again to go on after an interrupt.
    """
    from keystep.batch import Manifest, read_items
    from keystep.cli import pipeline
    from keystep.cli.batch_job import VideoJob
    from keystep.media import check_writable

    check_writable(out, is_folder=True)
    pipeline.check_model(model)
    crew = _Crew(workers, ray, device)
    crew.check()
    defaults = {
        **_read_method(method, assignments or (), policy), "seed": seed, "negative_prompt": negative_prompt,
        "steps": steps, "frames": frames, "height": height, "width": width, "resolution": resolution,
        "aspect": aspect, "seconds": seconds, "guidance": guidance,
    }  # fmt: skip
    reading = read_items(prompts, defaults)
    loading = _check_items(model, load or (), reading) | pipeline.offloading(offload)
    job = VideoJob(model, loading, dtype, device, pipeline.choose_fps(model, fps))
    settings = {
        "model": model, "load": loading or None, "dtype": dtype.value, "device": device, "fps": job.fps,
    }  # fmt: skip
    with Manifest(out, settings) as manifest:
        _run(manifest, reading, crew, job, tries)


@dataclass(frozen=True)
class _Crew:
    """Where the work is done, and by how many."""

    num: int | None
    ray: str | None
    device: str

    def check(self) -> None:
        from keystep.cli import pipeline
        from keystep.errors import require

        require(
            ":" not in self.device, "--device", self.device,
            "a device without a number, each worker has its own; CUDA_VISIBLE_DEVICES chooses among GPUs",
        )  # fmt: skip
        if self.ray is None:
            pipeline.check_device(self.device)
            num_gpus = len(self._gpus)
            if self.num is not None and num_gpus:
                require(self.num <= num_gpus, "--workers", self.num, f"1 to {num_gpus}, the GPUs there are")

    def hire(self, job: VideoJob) -> Workers:
        """The workers, not started yet."""
        from keystep.batch import LocalWorkers

        if self.ray is not None:
            from keystep.batch.cluster import RayWorkers

            return RayWorkers(job, self.num, self.ray, "CPU" if self.device == "cpu" else "GPU")
        return LocalWorkers(job, self._share_out())

    def _share_out(self) -> list[dict[str, str]]:
        """The environment of each worker: a GPU of its own, or its share of the cores."""
        if self._gpus:
            return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in self._gpus[: self.num]]
        num = self.num or 1
        share = max((os.cpu_count() or 1) // num, 1)
        return [{} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(share)}] * num

    @property
    def _gpus(self) -> list[str]:
        if self.device != "cuda":
            return []
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def _read_method(method: str | None, assignments: Sequence[str], policy: Path | None) -> dict[str, Any]:
    """The fields `method` and `options` of lines that have none; empty where no default is given."""
    from keystep.cli.method_options import build_named, read_method

    if method is None and policy is None and not assignments:
        return {}
    name, given = read_method(method, assignments, policy)
    build_named(name, given)
    return {"method": name, "options": given}


def _check_items(model: str, load: Sequence[str], reading: Reading) -> dict[str, Any]:
    """Move items that the model or the methods would refuse to the problems; returns how to load the model.

    Raises:
        ValueError: `load` is wrong for every item.
    """
    from keystep.cli import pipeline
    from keystep.cli.batch_job import read_words
    from keystep.cli.method_options import build_named

    pipeline.read_load_options(model, load)
    loading: dict[str, Any] | None = None
    built: set[str] = set()
    for line, item in list(reading.items.items()):
        try:
            words = read_words(item)
            pipeline.check_words(model, words)
            method = json.dumps([item.method, item.options])
            if method not in built:
                build_named(item.method, item.options)
                built.add(method)
            needed = pipeline.read_load_options(model, load, words)
            loading = needed if loading is None else loading
            if needed != loading:
                raise ValueError(f"it needs {needed} loaded, the items before it {loading}: another batch")
        except ValueError as error:
            reading.problems[line] = str(error)
            del reading.items[line]
    return loading or {}


def _run(manifest: Manifest, reading: Reading, crew: _Crew, job: VideoJob, max_tries: int) -> None:
    from keystep.batch import run_batch
    from keystep.cli.batch_report import BatchProgress, Tally, print_report

    items = list(reading.items.values())
    missing = manifest.choose_missing(items)
    for line, problem in sorted(reading.problems.items()):
        manifest.set_aside({"line": line}, problem)
    tally = Tally(num_before=len(items) - len(missing))
    begin = time.monotonic()
    if missing:
        workers = crew.hire(job)
        with BatchProgress(len(items), tally) as progress:
            run_batch(missing, workers, manifest, progress, max_tries=max_tries)
    records = [manifest.records[item.id] for item in items if item.id in manifest.records]
    print_report(manifest, records, tally, time.monotonic() - begin)
    if manifest.failures:
        raise typer.Exit(SOME_MISSING)
