"""Loads Open-Sora 1.2's released video autoencoder (hub id hpcai-tech/OpenSora-VAE-v1.2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keystep.models.checkpoint import State, find_folder, load_weights, read_weights
from keystep.models.opensora.vae import AutoencoderKLOpenSora

OURS = "temporal_vae.decoder.conv_out.conv.weight"
# Part of a key that only that version has.
OTHERS = {
    "encoder.down.0.block.0.": "the causal 3D autoencoder of Open-Sora 1.3 (or of Open-Sora-Plan)",
    "encoder.down_blocks.0.resnets.0.conv1.conv.": "the HunyuanVideo autoencoder of Open-Sora 2.0",
    "encoder.stages.0.": "the DC-AE autoencoder of Open-Sora 2.0",
    "encoder.down_blocks.0.resnets.0.conv1.weight": "a 2D autoencoder, as of Open-Sora 1.0 and 1.1",
}


def load_released_vae(source: str | Path, dtype: torch.dtype = torch.float32) -> AutoencoderKLOpenSora:
    """Load the released autoencoder; the weights of its 2D half are in the same file.

    Args:
        source: a folder with weights and config.json (without one: the released values), or a hub id.
        dtype: of the weights; they are stored as float32.

    Returns:
        The autoencoder, on the CPU, in evaluation mode.

    Raises:
        ValueError: nothing found; another version's autoencoder; missing, extra or mis-shaped keys.
    """
    folder = find_folder(source, ("config.json", "*.safetensors", "*.safetensors.index.json"))
    state = read_weights(folder)
    _refuse_other_versions(state, source)
    with torch.device("meta"):
        vae = AutoencoderKLOpenSora(**_arguments(folder / "config.json"))
    nn.Module.to(vae, dtype)
    return load_weights(vae, state, source).eval()


def _arguments(config: Path) -> dict[str, Any]:
    """Arguments of `AutoencoderKLOpenSora` from the config of Open-Sora's `VideoAutoencoderPipeline`."""
    released = json.loads(config.read_text()) if config.exists() else {}
    names = {"micro_frame_size": "micro_frame_size", "shift": "latents_mean", "scale": "latents_std"}
    arguments = {ours: released[theirs] for theirs, ours in names.items() if theirs in released}
    frame_vae = released.get("vae_2d") or {}
    if "micro_batch_size" in frame_vae:
        arguments["micro_batch_size"] = frame_vae["micro_batch_size"]
    return arguments


def _refuse_other_versions(state: State, source: str | Path) -> None:
    if OURS in state:
        return
    for part, name in OTHERS.items():
        if any(part in key for key in state):
            raise ValueError(f"checkpoint {source}: given {name}, allowed: the autoencoder of Open-Sora 1.2")
