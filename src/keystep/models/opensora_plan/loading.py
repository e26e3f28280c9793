"""The released layout of Open-Sora-Plan 1.1: `vae/` and a folder for each size, every key accounted for."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_pndm import PNDMScheduler

from keystep.errors import require
from keystep.models import t5
from keystep.models.checkpoint import CONFIG, State, build, find_folder, read_config, read_weights
from keystep.models.opensora_plan.sizes import FRAMES_OF_SIZE
from keystep.models.opensora_plan.transformer import (
    UNUSED_KEYS,
    OpenSoraPlanTransformer3DModel,
    transformer_arguments,
)
from keystep.models.opensora_plan.vae import UNUSED_PREFIX, CausalVideoVAE, vae_arguments
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

OPTIONAL = ("tokenizer", "text_encoder", "vae")
DEFAULT_SIZE = "65x512x512"


def load_pipeline(
    source: Place, size: str | None, given: Mapping[str, Any], dtype: torch.dtype
) -> dict[str, Any]:
    """All parts of the pipeline; T5 is loaded last.

    Args:
        source: folder or hub id of the released layout, or of a saved pipeline.
        size: one of `FRAMES_OF_SIZE`, of the released layout; None = `DEFAULT_SIZE`.
        given: parts by name: objects, places to load them from, or `AUTO`.
        dtype: of all weights that are loaded.

    Raises:
        ValueError: a size there is not, a config of another model, or keys that do not fit.
    """
    folder = find_release(source, size or DEFAULT_SIZE)
    if is_saved(folder):
        require(size is None, "size", size, "None for a saved pipeline, which is of one size")
        own = saved_places(folder, given)
    else:
        own = {
            "transformer": folder / (size or DEFAULT_SIZE),
            "vae": folder / "vae",
            "text_encoder": t5.RELEASED,
            "scheduler": PNDMScheduler(),
        }
    places = choose(given, t5.add_tokenizer(own, given))
    return load_parts(places, LOADERS, OPTIONAL, dtype)


def find_release(source: Place, size: str) -> Path:
    """The local folder of a checkpoint: of the released layout, or of a saved pipeline.

    Args:
        source: folder or hub id.
        size: the released size that is wanted.

    Raises:
        ValueError: an unknown size, neither folder nor hub id, or not the files of either layout.
    """
    require(size in FRAMES_OF_SIZE, "size", size, " or ".join(map(repr, FRAMES_OF_SIZE)))
    folder = find_folder(source, [f"{size}/*", INDEX, *(f"{name}/*" for name in LOADERS)])
    if is_saved(folder):
        return folder
    is_released = (folder / size / CONFIG).is_file()
    here = sorted(path.name for path in folder.iterdir()) if not is_released else []
    require(is_released, "checkpoint", f"{source} with {here}", f"a folder with {size}/{CONFIG}, or {INDEX}")
    return folder


def load_transformer(place: Place, dtype: torch.dtype) -> OpenSoraPlanTransformer3DModel:
    """The denoiser in a folder or at a hub id, see `build_transformer`."""
    folder = find_folder(place, ["*"])
    return build_transformer(read_config(folder), read_weights(folder), folder, dtype)


def load_vae(place: Place, dtype: torch.dtype) -> CausalVideoVAE:
    """The autoencoder in a folder or at a hub id, see `build_vae`."""
    folder = find_folder(place, ["*"])
    return build_vae(read_config(folder), read_weights(folder), folder, dtype)


def build_transformer(
    config: Mapping[str, Any], state: State, source: Place, dtype: torch.dtype = torch.float32
) -> OpenSoraPlanTransformer3DModel:
    """The denoiser of a config, released or saved, and its weights.

    Raises:
        ValueError: a variant keystep does not have, or keys that do not fit; lists them.
    """
    used = {key: value for key, value in state.items() if key not in UNUSED_KEYS}
    return build(OpenSoraPlanTransformer3DModel, transformer_arguments(config), used, source, dtype)


def build_vae(
    config: Mapping[str, Any], state: State, source: Place, dtype: torch.dtype = torch.float32
) -> CausalVideoVAE:
    """The autoencoder of a config, released or saved, and its weights.

    Raises:
        ValueError: a variant keystep does not have, or keys that do not fit; lists them.
    """
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED_PREFIX)}
    return build(CausalVideoVAE, vae_arguments(config), used, source, dtype)


LOADERS: dict[str, Loader] = {
    "transformer": load_transformer,
    "vae": load_vae,
    "scheduler": partial(load_scheduler, PNDMScheduler),
    **t5.LOADERS,
}
