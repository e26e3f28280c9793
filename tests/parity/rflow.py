"""Open-Sora sampled without caching, step by step; tables of its timesteps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from keystep.models.opensora.scheduler import RectifiedFlowScheduler

from .folder import keys_of, read_json
from .opensora import Recording, Rerun, find_stdit3, load_stdit3, sample
from .report import ABSOLUTE, Case, Result, compare_series, largest_difference, worst

NOISE = 1000.0  # the timestep of pure noise
LOST = "from step 1 on: the first timestep is above 1000, so the reference loses step 0 and adds noise again"


def find(folder: Path, label: str) -> Iterator[Case]:
    """Samplings without caching, and tables."""
    for path in sorted(folder.glob("*.safetensors")):
        keys = keys_of(path)
        if keys >= {"in.z", "in.y", "latents", "timesteps"} and "baseline_final" not in keys:
            yield Case(label + path.stem, path, run)
    for path in sorted(folder.glob("timesteps_table*.json")):
        yield Case(label + path.stem, path, run_table)


def run(name: str, path: Path) -> Iterator[Result]:
    """Timesteps and frame masks exactly, latents of all steps, outputs of recorded ones."""
    recording = Recording.read(path)
    assert recording.timesteps is not None, "see find"
    is_lost = recording.frame_mask is not None and bool((recording.timesteps[0] > NOISE).all())
    first, note = (1, LOST) if is_lost else (0, "")
    ours = recording.scheduler().timesteps[:, None].expand_as(recording.timesteps)
    theirs = recording.timesteps.clamp(max=NOISE)
    yield Result(f"{name} timesteps", largest_difference(ours, theirs))
    rerun = sample(load_stdit3(*find_stdit3(path.parent)), recording, first)
    if "x_mask" in recording.tensors:
        mask = recording.tensors["x_mask"][first:]
        differing = (torch.stack(rerun.masks) != mask).sum().item()
        yield Result(f"{name} frame masks", float(differing), note=note)
    yield compare_series(f"{name} latents", rerun.latents[1:], recording.latents[first + 1 :], note)
    yield from compare_outputs(name, recording, rerun, first)


def compare_outputs(name: str, recording: Recording, rerun: Rerun, first: int) -> Iterator[Result]:
    """The model's output at the steps it was recorded at."""
    recorded = {
        int(key.removeprefix("model_out.step")): value
        for key, value in recording.tensors.items()
        if key.startswith("model_out.step")
    }
    steps = [step for step in sorted(recorded) if step >= first]
    if steps:
        errors = [largest_difference(rerun.outputs[step - first], recorded[step]) for step in steps]
        error, index = worst(errors)
        yield Result(
            f"{name} model_out", error, ABSOLUTE, f"worst of {len(steps)} at {steps[index]}; a free run"
        )


def run_table(name: str, path: Path) -> Iterator[Result]:
    """How many rows of a table differ in any bit."""
    rows = read_json(path)
    differing = [row for row in rows if timesteps_of(row) != row["timesteps"]]
    yield Result(name, float(len(differing)), note=f"{len(rows)} rows")


def timesteps_of(row: dict[str, Any]) -> list[float]:
    """Our timesteps for a row of a table."""
    height, width = row["image_size"]
    scheduler = RectifiedFlowScheduler()
    scheduler.set_timesteps(
        row["steps"],
        height=height,
        width=width,
        num_frames=row["num_frames"],
        dtype=getattr(torch, row["model_args_dtype"]),
    )
    return scheduler.timesteps.tolist()
