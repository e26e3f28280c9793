"""`keystep calibrate`: measure a model once, for the methods whose schedules are made offline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keystep.cli import options

if TYPE_CHECKING:
    from keystep.calibrate import Record
    from keystep.cli.progress import GenerationProgress


class Calibrated(str, Enum):
    """Methods that need a calibration."""

    magcache = "magcache"
    static = "static"


MAX_GAP = 6  # AdaCache's longest gap at 30 evaluations is 6 too


def calibrate(
    model: options.Model,
    method: Annotated[Calibrated, typer.Option(help="What to measure for.")],
    prompts: options.PromptFile,
    out: Annotated[Path, typer.Option(help="The JSON file to write; an unfinished one is gone on with.")],
    seeds: options.Seeds = "0",
    max_gap: Annotated[
        int, typer.Option(min=2, help="static: longest way from one computed evaluation to the next.")
    ] = MAX_GAP,
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
    load: options.LoadOptions = None,
) -> None:
    """Measure a model on prompts of yours, for `magcache` (a run a prompt) or `static` (hundreds).

    What is measured stays in the file: run the same command again to go on after an interrupt.
    """
    from keystep.cli import pipeline
    from keystep.cli.prompts import parse_seeds, read_prompts
    from keystep.media import check_writable

    check_writable(out)
    pipeline.check_model(model)
    items = [(prompt, seed) for prompt in read_prompts(prompts) for seed in parse_seeds(seeds)]
    pipeline.check_device(device)
    words = {
        "steps": steps, "guidance": guidance, "frames": frames, "height": height, "width": width,
        "resolution": resolution, "aspect": aspect, "seconds": seconds,
    }  # fmt: skip
    pipeline.check_words(model, words)
    loading = pipeline.read_load_options(model, load or (), words)
    settings = {"model": model, "load": loading or None, **words, "dtype": dtype.value}
    pipe = pipeline.load_pipeline(model, dtype, device, loading)
    arguments = pipeline.fit_arguments(type(pipe), words)
    _run(pipe, method, settings, arguments, items, out, max_gap)


def _run(
    pipe: Any,
    method: Calibrated,
    settings: Mapping[str, Any],
    arguments: Mapping[str, Any],
    items: Sequence[tuple[str, int]],
    out: Path,
    max_gap: int,
) -> None:
    from keystep.calibrate import Record
    from keystep.cli.console import print_path
    from keystep.engine.target import find_transformers
    from keystep.models.registry import find_spec

    spec = find_spec(next(iter(find_transformers(pipe).values())), pipe)
    record = Record(out, method.value, spec.name, settings)
    task = _Task(pipe, spec, arguments, items, record)
    num_evaluations, values = task.ratios() if method is Calibrated.magcache else task.segments(max_gap)
    record.save(num_evaluations, values)
    field = "ratios" if method is Calibrated.magcache else "schedule"
    print_path("wrote", out)
    typer.echo(f"use it with --method {method.value} --set {field}={out}")


@dataclass(frozen=True)
class _Task:
    pipe: Any
    spec: Any
    arguments: Mapping[str, Any]
    items: Sequence[tuple[str, int]]
    record: Record

    def ratios(self) -> tuple[int, list[float]]:
        """MagCache's: means over the items."""
        from keystep.calibrate import measure_ratios
        from keystep.cli.progress import GenerationProgress

        missing = [item for item in self.items if not self.record.of(*item)]
        with GenerationProgress(len(missing)) as progress:
            for prompt, seed in missing:
                progress.begin_generation("plain")
                call = {**self.arguments, "prompt": prompt}
                self.record.of(prompt, seed)["ratios"] = measure_ratios(self.pipe, self.spec, call, seed)
                self.record.save()
        rows = [self.record.of(*item)["ratios"] for item in self.items]
        return len(rows[0]), [sum(column) / len(column) for column in zip(*rows, strict=True)]

    def segments(self, max_gap: int) -> tuple[int, dict[str, float]]:
        """The static schedule's: means over the items, stretch by stretch."""
        from keystep.calibrate import count_evaluations, edges_of
        from keystep.cli.progress import GenerationProgress
        from keystep.methods.static import name_edge

        first = {**self.arguments, "prompt": self.items[0][0]}
        num_evaluations = count_evaluations(self.pipe, first)
        edges = edges_of(num_evaluations, max_gap)
        with GenerationProgress(len(edges) * len(self.items)) as progress:
            for item in self.items:
                self._measure(progress, item, edges, num_evaluations)
        rows = [self.record.of(*item) for item in self.items]
        names = [name_edge(edge) for edge in edges]
        return num_evaluations, {name: sum(row[name] for row in rows) / len(rows) for name in names}

    def _measure(
        self, progress: GenerationProgress, item: tuple[str, int], edges: Sequence[Any], num_evaluations: int
    ) -> None:
        from keystep.calibrate import measure_segments
        from keystep.methods.static import name_edge

        prompt, seed = item
        run = self.record.of(prompt, seed)
        missing = [edge for edge in edges if name_edge(edge) not in run]

        def announced() -> Iterator[Any]:
            for edge in missing:
                progress.begin_generation(f"skip between {name_edge(edge)}")
                yield edge

        call = {**self.arguments, "prompt": prompt}
        if not missing:
            return
        for edge, error in measure_segments(self.pipe, announced(), num_evaluations, call, seed):
            run[name_edge(edge)] = error
            self.record.save()
