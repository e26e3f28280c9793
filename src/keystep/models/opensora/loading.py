"""Finds and loads the parts of Open-Sora 1.2: as they were released, or as `save_pretrained` wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keystep.errors import require
from keystep.models import t5
from keystep.models.checkpoint import CONFIG, State, build, find_folder, read_config, read_weights
from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae_checkpoint import load_vae
from keystep.models.parts import (
    INDEX,
    Loader,
    Place,
    choose,
    is_saved,
    load_parts,
    load_scheduler,
    saved_places,
)

TRANSFORMER = "hpcai-tech/OpenSora-STDiT-v3"
VAE = "hpcai-tech/OpenSora-VAE-v1.2"
OPTIONAL = ("tokenizer", "text_encoder")
_FILES = ("*.json", "*.safetensors", "*.model", "*.txt")

_ALLOWED = "the transformer of Open-Sora 1.2 (STDiT3)"
_OTHER_TYPES = {
    "STDiT": "Open-Sora 1.0 (STDiT)",
    "STDiT2": "Open-Sora 1.1 (STDiT2)",
    "MMDiTModel": "Open-Sora 2.0 (MMDiT)",
}
# part of a key that only that version has; the first that fits counts
_OTHER_KEYS = {
    "t_block_temp.": "Open-Sora 1.1 (STDiT2)",
    "blocks.0.attn_temp.": "Open-Sora 1.0 (STDiT)",
    "double_blocks.0.": "Open-Sora 2.0 (MMDiT)",
}
_CHANNELS_OF_1_3 = 16  # latents of its autoencoder; 1.2 has 4


def load_pipeline(source: Place, given: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """All parts of the pipeline. What is likeliest to be wrong is loaded first, T5 last.

    Args:
        source: folder or hub id of a saved pipeline, of the released transformer, or of a folder that holds
            the released repositories under their names.
        given: parts by name: objects, places to load them from, or `AUTO`.
        dtype: of all weights that are loaded.

    Raises:
        ValueError: a part is not found, is of another model or version, does not fit its keys or the others.
    """
    folder = find_pipeline(source)
    own = saved_places(folder, given) if is_saved(folder) else released_places(folder)
    places = choose(given, t5.add_tokenizer(own, given))
    parts = load_parts(places, LOADERS, (), dtype)
    transformer = parts["transformer"]
    latents = parts["vae"].config["latent_channels"]
    _check_fit("vae", "latent_channels", latents, transformer, "in_channels")
    parts |= load_parts(places, t5.LOADERS, OPTIONAL, dtype)
    if parts["text_encoder"] is not None:
        width = parts["text_encoder"].config.d_model
        _check_fit("text_encoder", "d_model", width, transformer, "caption_channels")
    return parts


def find_pipeline(source: Place) -> Path:
    """The folder of a pipeline, or of the released transformer, or of the released repositories together.

    Raises:
        ValueError: not found, or nothing there that can be loaded.
    """
    folder = find_folder(source, _FILES)
    if is_saved(folder) or any(folder.glob("*.safetensors")) or _part(folder, TRANSFORMER) is not None:
        return folder
    name = TRANSFORMER.rpartition("/")[2]
    allowed = f"a folder with {INDEX}, with the transformer's *.safetensors, or with a subfolder {name}"
    raise ValueError(f"checkpoint: given {str(source)!r}, allowed: {allowed}")


def released_places(folder: Path) -> dict[str, Any]:
    """Where the released parts are: in subfolders named like their repositories, else on the hub."""
    return {
        "transformer": _part(folder, TRANSFORMER) or folder,
        "vae": _part(folder, VAE) or VAE,
        "text_encoder": _part(folder, t5.RELEASED) or t5.RELEASED,
        "scheduler": RectifiedFlowScheduler(),
    }


def load_transformer(place: Place, dtype: torch.dtype) -> STDiT3:
    """Load the transformer, released or saved, on the CPU, in evaluation mode.

    Args:
        place: holds weights and config.json (without one: the released values).
        dtype: of the weights.

    Raises:
        ValueError: another version of Open-Sora (named); missing, extra or mis-shaped keys.
    """
    folder = find_folder(place, _FILES)
    config = read_config(folder) if (folder / CONFIG).exists() else {}
    _refuse_other_config(config, folder)
    arguments = transformer_arguments(config)
    state = read_weights(folder)
    _refuse_other_keys(state, folder)
    return build(STDiT3, arguments, state, folder, dtype)


LOADERS: dict[str, Loader] = {
    "transformer": load_transformer,
    "vae": load_vae,
    "scheduler": partial(load_scheduler, RectifiedFlowScheduler),
}


def _part(folder: Path, repository: str) -> Path | None:
    """The subfolder that holds a released repository."""
    path = folder / repository.rpartition("/")[2]
    return path if path.is_dir() else None


def _check_fit(name: str, field: str, value: int, transformer: nn.Module, of_transformer: str) -> None:
    allowed = transformer.config[of_transformer]  # type: ignore[index]
    require(
        value == allowed, f"{name}.config.{field}", value, f"{allowed}, the transformer's {of_transformer}"
    )


def _refuse_other_config(config: Mapping[str, Any], folder: Path) -> None:
    given = _OTHER_TYPES.get(str(config.get("model_type")))
    if config.get("in_channels") == _CHANNELS_OF_1_3:
        given = given or f"Open-Sora 1.3 (latents with {_CHANNELS_OF_1_3} channels)"
    if given:
        raise ValueError(f"checkpoint {folder}: given {given}, allowed: {_ALLOWED}")


def _refuse_other_keys(state: State, folder: Path) -> None:
    for part, given in _OTHER_KEYS.items():
        if any(part in key for key in state):
            raise ValueError(f"checkpoint {folder}: given {given}, allowed: {_ALLOWED}")
