"""`*trajectory_*.safetensors`: whole generations, plain and accelerated."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.engine.method import Method
from keystep.how import FrequencyBands, Hold
from keystep.methods.fastercache import PRESETS, FasterCache, attention_rule, cfg_rule
from keystep.policy import Policy, Rule
from keystep.what import Attention, Branch
from keystep.when import Always

from .decisions import BANDS, Log, compare_log, find_log
from .folder import keys_of, nearest, read_json
from .forward import without_images
from .networks import Source, find_source
from .report import Case, Result, compare_series, not_run
from .sampling import Free, Recording, constant_guidance, num_steps, run_pipeline, run_session

NEVER_SKIPS = Policy(
    (Rule(Branch("uncond"), Always(), FrequencyBands()), Rule(Attention(), Always(), Hold())), "never skips"
)
REASONS = {
    "fc": "the reference's own run, which mixes up the branches; fc_fixed is the target",
    "fc_multi": "the reference's multi-device script, which has other constants and mixes up the branches",
}


def find(folder: Path, label: str) -> Iterator[Case]:
    """The trajectories of a folder."""
    for path in sorted(folder.glob("*trajectory_*.safetensors")):
        yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """Run one trajectory again, every way that applies."""
    prefix, _, variant = path.stem.partition("trajectory_")
    source = find_source(path.parent)
    if isinstance(source, str):
        yield not_run(name, source)
        return
    if variant not in ("plain", "fc_fixed"):
        yield not_run(name, REASONS.get(variant, f"unknown variant {variant!r}"))
        return
    tensors = load_file(path)
    log = log_of(path, prefix, variant, len(tensors["model_out"]))
    recording = read(tensors, log)
    method = method_of(variant, source.network.preset, len(recording.times))
    if "latents" in keys_of(path):
        config = read_scheduler_config(path.parent, prefix, source.network.has_default_scheduler)
        yield from run_free(name, source, recording, method, log, config)
    else:
        yield from run_fed(name, source, recording, method, log)


def method_of(variant: str, preset: str, num_evaluations: int) -> Method:
    """The method that a variant was recorded with."""
    if variant == "plain":
        return NEVER_SKIPS
    constants = PRESETS[preset]
    if num_evaluations == constants.native:
        return FasterCache(preset=preset)
    # reference code has the same numbers at any length of run, where FasterCache would scale them
    return Policy((cfg_rule(constants), attention_rule(constants)), "fastercache, unscaled")


def log_of(path: Path, prefix: str, variant: str, num_evaluations: int) -> Log | None:
    """The decision log of a trajectory.

    A prefixed trajectory (`ddim_`) makes the decisions of the one without prefix, if both have one length, on
    tensors and at times of its own.
    """
    log = find_log(path, variant)
    if log is None or not prefix:
        return log
    if len(log) != num_evaluations:
        return None
    own = (*BANDS, "t", "timestep")
    return [{key: value for key, value in entry.items() if key not in own} for entry in log]


def read_scheduler_config(folder: Path, prefix: str, has_default: bool) -> dict[str, Any]:
    """The config of a diffusers scheduler: of the same prefix, if there are several."""
    found = nearest(folder, f"{prefix}scheduler_config.json", "*scheduler_config.json")
    if not found and not has_default:
        raise FileNotFoundError(f"no scheduler config in {folder.name}/ or its parent")
    return read_json(found[0]) if found else {}


def read(tensors: dict[str, torch.Tensor], log: Log | None) -> Recording:
    """The recording in a trajectory file."""
    outputs = tensors["model_out"]
    names = [name for name in tensors if name.startswith(("encoder_hidden_states", "context"))]
    guidance = tensors["guidance"].expand(len(outputs)).tolist() if "guidance" in tensors else None
    latents = tensors["latents"] if "latents" in tensors else tensors["x"]
    times = tensors["timesteps"] if "timesteps" in tensors else times_of(log, len(outputs))
    return Recording(latents, outputs, without_images(tensors[names[0]]), times, guidance)


def times_of(log: Log | None, num_evaluations: int) -> torch.Tensor:
    """From the log, else trailing spacing over 1000: 999, 979, ... for 50 evaluations."""
    if log is not None and "timestep" in log[0]:
        return torch.tensor([int(entry["timestep"]) for entry in log])
    return torch.tensor([round(1000 - k * 1000 / num_evaluations) - 1 for k in range(num_evaluations)])


def run_fed(
    name: str, source: Source, recording: Recording, method: Method, log: Log | None
) -> Iterator[Result]:
    """Recorded latents in, outputs compared."""
    rerun = run_session(source, recording, method)
    yield compare_series(f"{name} model_out", rerun.outputs, recording.outputs, "fed with recorded latents")
    yield from compare_log(name, log, rerun)


def run_free(
    name: str, source: Source, recording: Recording, method: Method, log: Log | None, config: dict[str, Any]
) -> Iterator[Result]:
    """From the first latents to the last, by hand and through a pipeline; outputs and latents compared."""
    scheduler = source.network.scheduler.from_config(config)
    num_steps(scheduler, len(recording.times))
    unequal = (scheduler.timesteps != recording.times).sum().item()
    yield Result(f"{name} timesteps", float(unequal), note=f"of {len(recording.times)} evaluations")
    constant = constant_guidance(recording, scheduler, source.network.channels)
    scales = recording.guidance or [constant] * len(recording.times)
    rerun = run_session(source, recording, method, Free(scheduler, scales))
    note = "recorded guidance" if recording.guidance else f"guidance {constant:g}"
    yield compare_series(f"{name} model_out", rerun.outputs, recording.outputs, note)
    yield compare_series(f"{name} latents", rerun.latents, recording.latents[1:])
    yield from compare_log(name, log, rerun)
    options = pipeline_options(source, recording, scales)
    if isinstance(options, str):
        yield not_run(f"{name} pipeline", options)
        return
    rerun = run_pipeline(source, recording, method, source.network.scheduler.from_config(config), **options)
    note = source.network.pipeline.__name__
    yield compare_series(f"{name} pipeline model_out", rerun.outputs, recording.outputs, note)
    yield compare_series(f"{name} pipeline latents", rerun.latents, recording.latents[1:])
    yield from compare_log(f"{name} pipeline", log, rerun)


def pipeline_options(source: Source, recording: Recording, scales: list[float]) -> dict[str, Any] | str:
    """How to make a pipeline guide as recorded (constant, or as CogVideoX's does), or why it cannot."""
    axis = source.network.channels
    if source.network.variance != (recording.outputs[0].shape[axis] == 2 * recording.latents[0].shape[axis]):
        return "the pipeline takes another number of output channels"
    if recording.branches == 1 or max(scales) <= 1:
        return "not guided"
    if len(set(scales)) == 1:
        return {"guidance_scale": scales[0]}
    num = len(scales)
    waves = [(1 - math.cos(math.pi * ((num - t) / num) ** 5.0)) / 2 for t in recording.times.tolist()]
    strength = round((max(scales) - 1) / max(waves), 3)
    is_dynamic = all(abs(1 + strength * w - s) < 1e-6 for w, s in zip(waves, scales, strict=True))
    if not is_dynamic:
        return "the pipeline has no guidance like this"
    return {"guidance_scale": strength, "use_dynamic_cfg": True}
