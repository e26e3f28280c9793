"""Open-Sora's transformer for recorded cases, and its recorded samplings run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.models.checkpoint import load_weights, read_file
from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.frame_mask import FrameSchedule
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3

from .folder import read_json

Tensors = dict[str, torch.Tensor]
NAMES = {
    "x": "hidden_states",
    "timestep": "timestep",
    "y": "encoder_hidden_states",
    "mask": "encoder_attention_mask",
    "x_mask": "frame_mask",
    "fps": "fps",
    "height": "height",
    "width": "width",
}  # the reference's -> STDiT3.forward's


def load_stdit3(config: Path, weights: Path) -> STDiT3:
    """The transformer in float32, every key of the weights used."""
    model = STDiT3(**transformer_arguments(read_json(config)))
    return load_weights(model, read_file(weights), weights).eval()


def find_stdit3(folder: Path) -> tuple[Path, Path]:
    """Config and weights for a folder's cases: its own, else those of `stdit3*` beside it.

    AdaCache's cases and folders called `*_smooth` are of AdaCache's smooth weights.
    """
    parent, weights = folder.parent, [folder / "weights.safetensors"]
    configs = [folder / "config.json", *sorted(parent.glob("stdit3*/config.json"))]
    if folder.name == "adacache" or folder.name.endswith("_smooth"):
        weights = [path / "weights_smooth.safetensors" for path in (folder, parent / "adacache")]
    weights += sorted(parent.glob("stdit3*/weights.safetensors"))
    existing = [[path for path in paths if path.is_file()] for paths in (configs, weights)]
    if not all(existing):
        raise FileNotFoundError(f"no config and weights of STDiT3 in {folder.name}/ or stdit3*/ beside it")
    return existing[0][0], existing[1][0]


def inputs_of(path: Path) -> Tensors:
    """Arguments of `STDiT3.forward` that a file holds as `in.*`; the text without its extra axis."""
    given = {
        key.removeprefix("in."): value for key, value in load_file(path).items() if key.startswith("in.")
    }
    inputs = {ours: given[theirs] for theirs, ours in NAMES.items() if theirs in given}
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].squeeze(1)
    return inputs


@dataclass(frozen=True)
class Recording:
    """A recorded sampling. B videos, N steps; guided rows are conditional, then unconditional.

    Attributes:
        inputs: of `STDiT3.forward`, for the conditional rows.
        latents: (N + 1, B, ...), what the model was given at each step, and the result.
        timesteps: (N, 2B); None = not recorded.
        scale: of guidance.
        num_frames: of the video.
        frame_mask: what becomes of each latent frame, (B, T); None = generated.
        noises: (N, B, ...), the noise drawn at each step; None = not recorded.
        tensors: all that the file holds.
    """

    inputs: Tensors
    latents: torch.Tensor
    timesteps: torch.Tensor | None
    scale: float
    num_frames: int
    frame_mask: torch.Tensor | None
    noises: torch.Tensor | None
    tensors: Tensors

    @classmethod
    def read(cls, path: Path) -> Recording:
        """From a file and the entry of its name in index.json."""
        tensors, case = load_file(path), read_json(path.parent / "index.json")[path.stem]
        return cls(
            inputs=inputs_of(path),
            latents=tensors["latents"],
            timesteps=tensors.get("timesteps"),
            scale=case["cfg"],
            num_frames=int(tensors["in.num_frames"][0]),
            frame_mask=tensors.get("in.frame_mask"),
            noises=tensors.get("noises"),
            tensors=tensors,
        )

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.latents) - 1

    def scheduler(self) -> RectifiedFlowScheduler:
        """Set for this video."""
        scheduler = RectifiedFlowScheduler()
        height, width = (int(self.inputs[name][0]) for name in ("height", "width"))
        scheduler.set_timesteps(self.num_steps, height=height, width=width, num_frames=self.num_frames)
        return scheduler


@dataclass(frozen=True)
class Rerun:
    """What a sampling gave this time: outputs and frame masks of each step, latents as in `Recording`."""

    outputs: list[torch.Tensor]
    masks: list[torch.Tensor]
    latents: list[torch.Tensor]


def nothing() -> None:
    """What happens after a step by default."""


@torch.no_grad()
def sample(
    model: Any, recording: Recording, first: int = 0, after_step: Callable[[], None] = nothing
) -> Rerun:
    """Sample freely from the recorded latents of step `first` on."""
    scheduler, latents = recording.scheduler(), recording.latents[first]
    inputs = {name: value for name, value in recording.inputs.items() if name != "timestep"}
    null = model.y_embedder.y_embedding.expand(len(latents), -1, -1)
    inputs["encoder_hidden_states"] = torch.cat([inputs["encoder_hidden_states"], null])
    schedule = None if recording.frame_mask is None else FrameSchedule(recording.frame_mask, scheduler)
    result = Rerun([], [], [latents])
    for step in range(first, recording.num_steps):
        if schedule is not None:
            latents = result.latents[-1] = noised(schedule, step, latents, recording.noises)
            result.masks.append(schedule.active[step].repeat(2, 1))
            inputs["frame_mask"] = result.masks[-1]
        timestep = scheduler.timesteps[step]
        rows = torch.cat([latents, latents])
        output = model(rows, timestep=timestep.expand(len(rows)), **inputs, return_dict=False)[0]
        cond, uncond = output[:, : latents.shape[1]].chunk(2)
        velocity = uncond + recording.scale * (cond - uncond)
        if schedule is not None:
            velocity = schedule.mask_velocity(step, velocity)
        latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        after_step()
        result.outputs.append(output)
        result.latents.append(latents)
    return result


def noised(
    schedule: FrameSchedule, step: int, latents: torch.Tensor, noises: torch.Tensor | None
) -> torch.Tensor:
    """Latents with the noise that a step adds to given frames."""
    if not schedule.needs_noise[step]:
        return latents
    assert noises is not None, "a recording with edited frames has the noise"
    return schedule.begin(step, latents, noises[step])
