"""Open-Sora's video autoencoder: decoded and encoded videos; the released one's keys and latent sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.models.checkpoint import compare_keys, load_weights
from keystep.models.opensora.vae import AutoencoderKLOpenSora

from .folder import keys_of, nearest, read_json
from .report import ABSOLUTE, Case, Result, largest_difference

TENSORS = {"in.z", "temporal_out"}  # every case has them
CHUNKS = ("micro_frame_size", "micro_batch_size")


def find(folder: Path, label: str) -> Iterator[Case]:
    """Videos of a tiny autoencoder, and descriptions of a released one."""
    for path in sorted(folder.glob("*.safetensors")):
        if keys_of(path) >= TENSORS:
            yield Case(label + path.stem, path, run)
    for path in sorted(folder.glob("vae*state_dict.json")):
        yield Case(label + path.stem, path, run_released)


def run(name: str, path: Path) -> Iterator[Result]:
    """One result per recorded tensor, and the latent size."""
    case, golden = read_json(path.parent / "index.json")[path.stem], load_file(path)
    vae = build(path.parent, case)
    num_frames = golden["temporal_out"].shape[2]
    given = list(vae.get_latent_size((num_frames, *pixels_of(vae, golden["in.z"]))))
    yield Result(f"{name} latent size", float(given != case["latent_size"]), note=f"{given}")
    for quantity, ours in compute(vae, golden, num_frames).items():
        error = largest_difference(ours, golden[quantity])
        yield Result(f"{name} {quantity}", error, ABSOLUTE, f"{num_frames} frames")


@torch.no_grad()
def compute(
    vae: AutoencoderKLOpenSora, golden: dict[str, torch.Tensor], num_frames: int
) -> dict[str, torch.Tensor]:
    """Whatever is recorded, under the golden's names; temporal halves from recorded frame latents."""
    ours = {"temporal_out": vae.decode_frame_latents(golden["in.z"], num_frames)}
    if "out" in golden:
        ours["out"] = vae.decode(golden["in.z"], num_frames, return_dict=False)[0]
    if "encode.spatial_latents_mode" in golden:
        ours["encode.out_mode"] = vae.encode_frame_latents(golden["encode.spatial_latents_mode"]).mode()
    if "encode.in.pixels" in golden:
        pixels = golden["encode.in.pixels"]
        ours["encode.spatial_latents_mode"] = vae.spatial_vae.encode(pixels, generator=None)
        ours["encode.out_mode"] = vae.encode(pixels, return_dict=False)[0].mode()
    return ours


def pixels_of(vae: AutoencoderKLOpenSora, latents: torch.Tensor) -> tuple[int, int]:
    """Height and width of the videos that latents (B, C, T', h, w) belong to."""
    _, rows, columns = vae.patch_size
    return latents.shape[3] * rows, latents.shape[4] * columns


def build(folder: Path, case: dict[str, Any]) -> AutoencoderKLOpenSora:
    """The folder's autoencoder, with one case's chunks; the weights may be of the temporal half alone."""
    arguments = arguments_of(read_json(nearest(folder, "config*.json")[0]))
    chunks = {name: case[name] for name in CHUNKS}
    vae = AutoencoderKLOpenSora(**arguments, **chunks)
    weights = nearest(folder, "weights*.safetensors")[0]
    state = load_file(weights)
    halves = {key.split(".")[0] for key in state}
    absent = [key for key in vae.state_dict() if key.split(".")[0] not in halves]
    return load_weights(vae, state, weights.name, optional=absent).eval()


def arguments_of(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the autoencoder from the config of the recorded one."""
    frames, temporal = config["spatial_autoencoder_kl"], config["temporal"]
    same = ("in_channels", "out_channels", "latent_channels", "block_out_channels")
    return {
        **{name: frames[name] for name in (*same, "layers_per_block", "norm_num_groups")},
        "scaling_factor": config["spatial_scaling"],
        "temporal_widths": [temporal["filters"] * factor for factor in temporal["channel_multipliers"]],
        "temporal_layers_per_block": temporal["num_res_blocks"],
        "temporal_downsample": temporal["temporal_downsample"],
        "temporal_norm_num_groups": temporal["num_groups"],
        "latents_mean": config["shift"],
        "latents_std": config["scale"],
    }


def run_released(name: str, path: Path) -> Iterator[Result]:
    """The default autoencoder against the released one: keys and shapes, latent sizes, arguments."""
    released = read_json(path)
    with torch.device("meta"):
        vae = AutoencoderKLOpenSora()
        state = {key: torch.empty(value["shape"]) for key, value in released["state_dict"].items()}
    yield count(f"{name} keys", compare_keys(vae, state), len(state))
    sizes = released["latent_sizes"]
    differing = [
        key for key, size in sizes.items() if list(vae.get_latent_size(size["pixels"])) != size["latent"][1:]
    ]
    yield count(f"{name} latent sizes", differing, len(sizes))
    expected = arguments_of(released) | {name: released[name] for name in CHUNKS}
    differing = [key for key, value in expected.items() if plain(vae.config[key]) != value]
    yield count(f"{name} defaults", differing, len(expected))


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def count(name: str, differing: list[str], total: int) -> Result:
    """The number of things that differ, and which."""
    return Result(name, float(len(differing)), note=f"of {total}: {', '.join(differing[:5]) or 'none'}")
