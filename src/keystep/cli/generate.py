"""`keystep generate`: one prompt, one video file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keystep.cli import options, ranks


def generate(
    model: options.Model,
    prompt: options.Prompt,
    out: options.VideoFile,
    method: options.Method = None,
    assignments: options.Assignments = None,
    policy: options.PolicyFile = None,
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
    trace: options.TraceFile = None,
    ulysses: options.Ulysses = None,
    cfg_parallel: options.CfgParallel = False,
) -> None:
    """Generate one video, accelerated, and say what was skipped.

    Under torchrun all processes make the video together, and the first one writes it.
    """
    from keystep.cli import pipeline
    from keystep.cli.method_options import build_method

    with ranks.joined(device) as own_device:
        ranks.check_ranks(ulysses, cfg_parallel)
        pipeline.check_model(model)
        files = _Files(out, trace, pipeline.choose_fps(model, fps))
        files.check()
        built = build_method(method, assignments or (), policy)
        if built is None and trace is not None:
            raise ValueError("--trace: a plain generation has no trace; leave it out or choose a method")
        pipeline.check_device(own_device)
        words = {
            "prompt": prompt, "negative-prompt": negative_prompt, "steps": steps, "guidance": guidance,
            "frames": frames, "height": height, "width": width, "resolution": resolution, "aspect": aspect,
            "seconds": seconds,
        }  # fmt: skip
        pipeline.check_words(model, words)
        loading = pipeline.read_load_options(model, load or (), words) | pipeline.offloading(offload)
        pipe = pipeline.load_pipeline(model, dtype, own_device, loading)
        with ranks.shared(pipe, ulysses, cfg_parallel):
            _run(pipe, built, words, seed, files)


@dataclass(frozen=True)
class _Files:
    video: Path
    trace: Path | None
    fps: float

    def check(self) -> None:
        from keystep.media import check_writable

        options.check_mp4(self.video)
        for path in filter(None, (self.video, self.trace) if ranks.is_first() else ()):
            check_writable(path)


def _run(pipe: Any, method: Any, words: Mapping[str, Any], seed: int, files: _Files) -> None:
    from keystep.cli import pipeline
    from keystep.cli.console import out_console, print_path
    from keystep.cli.progress import GenerationProgress
    from keystep.media import choose_scale, write_mp4, write_text
    from keystep.metrics.generation import run_pipeline

    arguments = pipeline.fit_arguments(type(pipe), words)
    with GenerationProgress(1) as progress:
        progress.begin_generation("generating")
        made = run_pipeline(pipe, method, arguments, seed, on_step=progress.end_step)
    if not ranks.is_first():
        return
    write_mp4(files.video, made.video, files.fps, choose_scale(made.video))
    if files.trace is not None and made.trace is not None:
        write_text(files.trace, options.to_json(made.trace.to_dict()))
    summary = made.summary or f"plain generation\n  time: {made.loop_s:.2f} s in the denoising loop"
    out_console().print(summary, markup=False, highlight=False)
    print_path("wrote", files.video)
