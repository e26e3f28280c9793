"""The released layout of Open-Sora-Plan 1.1: `vae/` and a folder for each size, every key accounted for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from transformers import AutoTokenizer, T5EncoderModel

from keystep.errors import require
from keystep.models.checkpoint import State, find_folder, load_weights, read_weights
from keystep.models.opensora_plan.sizes import FRAMES_OF_SIZE
from keystep.models.opensora_plan.transformer import (
    UNUSED_KEYS,
    OpenSoraPlanTransformer3DModel,
    transformer_arguments,
)
from keystep.models.opensora_plan.vae import UNUSED_PREFIX, CausalVideoVAE, vae_arguments

CONFIG = "config.json"
INDEX = "model_index.json"  # of a pipeline saved by diffusers
TEXT_ENCODER = "DeepFloyd/t5-v1_1-xxl"
DEFAULT_SIZE = "65x512x512"


def find_release(source: str | Path, size: str) -> Path:
    """The local folder of a checkpoint: of the released layout, or of a saved pipeline.

    Args:
        source: folder or hub id.
        size: the released size that is wanted.

    Raises:
        ValueError: an unknown size, neither folder nor hub id, or not the files of either layout.
    """
    require(size in FRAMES_OF_SIZE, "size", size, " or ".join(map(repr, FRAMES_OF_SIZE)))
    folder = find_folder(source, [f"{size}/*", "vae/*", INDEX])
    if (folder / INDEX).is_file():
        return folder
    is_released = (folder / size / CONFIG).is_file()
    here = sorted(path.name for path in folder.iterdir()) if not is_released else []
    require(is_released, "checkpoint", f"{source} with {here}", f"a folder with {size}/{CONFIG}, or {INDEX}")
    return folder


def released_parts(folder: Path, size: str, given: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """All parts of the pipeline from the released layout.

    Args:
        folder: has `vae/` and a folder of the size.
        size: one of `FRAMES_OF_SIZE`.
        given: parts by name: objects, or folders and hub ids to load them from; None = from `folder`. A text
            encoder that is None stays away.
        dtype: of all weights.

    Raises:
        ValueError: a config of another model, or keys that do not fit.
    """
    encoder = given["text_encoder"]
    places = {
        **given,
        "transformer": folder / size if given["transformer"] is None else given["transformer"],
        "vae": folder / "vae" if given["vae"] is None else given["vae"],
        "tokenizer": encoder if given["tokenizer"] is None else given["tokenizer"],
        "scheduler": PNDMScheduler() if given["scheduler"] is None else given["scheduler"],
    }
    if encoder is not None and not _is_place(encoder):
        require(given["tokenizer"] is not None, "tokenizer", None, "an object, folder or hub id, too")
    return {name: load_part(name, place, dtype) for name, place in places.items()}


def replaced_parts(given: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The parts that are to replace those of a saved pipeline; a text encoder that is None stays away."""
    wanted = {name: place for name, place in given.items() if place is not None or name == "text_encoder"}
    if wanted["text_encoder"] == TEXT_ENCODER:  # the default; the saved pipeline has its own
        del wanted["text_encoder"]
    return {name: load_part(name, place, dtype) for name, place in wanted.items()}


def load_part(name: str, place: Any, dtype: torch.dtype) -> Any:
    """One part of the pipeline from a folder or hub id; an object or None is what it is."""
    if not _is_place(place):
        return place
    if name == "text_encoder":
        return T5EncoderModel.from_pretrained(place, dtype=dtype).eval()
    if name == "tokenizer":
        return AutoTokenizer.from_pretrained(place)
    if name == "scheduler":
        return PNDMScheduler.from_pretrained(place)
    folder = find_folder(place, ["*"])
    build = build_transformer if name == "transformer" else build_vae
    return build(read_config(folder), read_weights(folder), folder, dtype)


def build_transformer(
    released: Mapping[str, Any], state: State, source: str | Path, dtype: torch.dtype = torch.float32
) -> OpenSoraPlanTransformer3DModel:
    """The denoiser of a released config and its weights.

    Raises:
        ValueError: a variant keystep does not have, or keys that do not fit; lists them.
    """
    with init_empty_weights():  # parameters alone: the position tables are made here
        model = OpenSoraPlanTransformer3DModel(**transformer_arguments(released))
    used = {key: value for key, value in state.items() if key not in UNUSED_KEYS}
    return load_weights(model, used, source, dtype=dtype).eval()


def build_vae(
    released: Mapping[str, Any], state: State, source: str | Path, dtype: torch.dtype = torch.float32
) -> CausalVideoVAE:
    """The autoencoder of a released config and its weights.

    Raises:
        ValueError: a variant keystep does not have, or keys that do not fit; lists them.
    """
    with init_empty_weights():
        model = CausalVideoVAE(**vae_arguments(released))
    used = {key: value for key, value in state.items() if not key.startswith(UNUSED_PREFIX)}
    return load_weights(model, used, source, dtype=dtype).eval()


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        ValueError: there is none.
    """
    path = folder / CONFIG
    require(path.is_file(), "checkpoint", str(folder), f"a folder with {CONFIG} and weights")
    return json.loads(path.read_text(encoding="utf-8"))


def _is_place(place: Any) -> bool:
    return isinstance(place, (str, Path))
