"""Loads Open-Sora 1.2's video autoencoder: released (hub id hpcai-tech/OpenSora-VAE-v1.2) or saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from keystep.models.checkpoint import CONFIG, State, build, find_folder, read_config, read_weights
from keystep.models.config import arguments_for
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from keystep.models.parts import Place

OURS = "temporal_vae.decoder.conv_out.conv.weight"
# Part of a key that only that version has.
OTHERS = {
    "encoder.down.0.block.0.": "the causal 3D autoencoder of Open-Sora 1.3 (or of Open-Sora-Plan)",
    "encoder.down_blocks.0.resnets.0.conv1.conv.": "the HunyuanVideo autoencoder of Open-Sora 2.0",
    "encoder.stages.0.": "the DC-AE autoencoder of Open-Sora 2.0",
    "encoder.down_blocks.0.resnets.0.conv1.weight": "a 2D autoencoder, as of Open-Sora 1.0 and 1.1",
}


def load_vae(place: Place, dtype: torch.dtype = torch.float32) -> AutoencoderKLOpenSora:
    """Load the autoencoder; the weights of its 2D half are in the same file.

    Args:
        place: a folder with weights and config.json (without one: the released values), or a hub id.
        dtype: of the weights; the released ones are stored as float32.

    Returns:
        The autoencoder, on the CPU, in evaluation mode.

    Raises:
        ValueError: nothing found; another version's autoencoder; missing, extra or mis-shaped keys.
    """
    folder = find_folder(place, (CONFIG, "*.safetensors", "*.safetensors.index.json"))
    state = read_weights(folder)
    _refuse_other_versions(state, place)
    config = read_config(folder) if (folder / CONFIG).exists() else {}
    return build(AutoencoderKLOpenSora, vae_arguments(config), state, place, dtype)


def vae_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `AutoencoderKLOpenSora` from its own config or that of the released repository.

    Raises:
        ValueError: its own config has a field that is not known.
    """
    if config.get("_class_name") == AutoencoderKLOpenSora.__name__:
        return arguments_for(AutoencoderKLOpenSora.__init__, config, {}, ())
    names = {"micro_frame_size": "micro_frame_size", "shift": "latents_mean", "scale": "latents_std"}
    arguments = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    frame_vae = config.get("vae_2d") or {}
    if "micro_batch_size" in frame_vae:
        arguments["micro_batch_size"] = frame_vae["micro_batch_size"]
    return arguments


def _refuse_other_versions(state: State, source: Place) -> None:
    if OURS in state:
        return
    for part, name in OTHERS.items():
        if any(part in key for key in state):
            raise ValueError(f"checkpoint {source}: given {name}, allowed: the autoencoder of Open-Sora 1.2")
