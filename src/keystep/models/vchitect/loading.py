"""Vchitect-2.0's parts from a folder or the hub; the released layout is that of `save_pretrained` too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from keystep.errors import require
from keystep.models.checkpoint import build, find_folder, read_config, read_weights
from keystep.models.config import arguments_for
from keystep.models.parts import (
    INDEX,
    Loader,
    Place,
    choose,
    is_auto,
    is_saved,
    load_model,
    load_parts,
    load_scheduler,
    load_tokenizer,
    saved_places,
)
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
OPTIONAL = ("vae", *TOKENIZERS, *ENCODERS)
_IRRELEVANT = ("tp_size",)  # among how many devices training split the heads


def load_pipeline(source: Place, given: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """All parts of the pipeline, each from the subfolder of its name with the config there; T5 last.

    Args:
        source: a folder, or a hub id such as `Vchitect/Vchitect-2.0-2B`.
        given: parts by name: objects, places to load them from, or `AUTO`.
        dtype: of all weights that are loaded.

    Raises:
        ValueError: a subfolder is missing, or weights do not fit.
    """
    wanted = [name for name, part in given.items() if is_auto(part)]
    folder = find_folder(source, [INDEX, *(f"{name}/*" for name in wanted)])
    own: dict[str, Path | None] = {name: folder / name for name in given}
    if is_saved(folder):
        own |= saved_places(folder, given)
    missing = [name for name in wanted if (place := own[name]) is not None and not place.is_dir()]
    require(not missing, "checkpoint", str(source), f"a folder with the subfolders {', '.join(missing)} too")
    return load_parts(choose(given, own), LOADERS, OPTIONAL, dtype)


def load_transformer(place: Place, dtype: torch.dtype) -> VchitectTransformer3DModel:
    """The transformer of a folder or hub id with `config.json` and weights; every key must fit.

    Raises:
        ValueError: an unknown field of the config, or missing, extra or mis-shaped keys; lists them.
    """
    folder = find_folder(place, ["*"])
    arguments = transformer_arguments(read_config(folder))
    return build(VchitectTransformer3DModel, arguments, read_weights(folder), folder, dtype)


def transformer_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `VchitectTransformer3DModel` from a config, released or saved.

    Raises:
        ValueError: a field that is not known.
    """
    arguments = arguments_for(VchitectTransformer3DModel.__init__, config, {}, _IRRELEVANT)
    if arguments.get("out_channels", 0) is None:  # as many as go in
        arguments["out_channels"] = arguments["in_channels"]
    return arguments


LOADERS: dict[str, Loader] = {
    "transformer": load_transformer,
    "scheduler": partial(load_scheduler, FlowMatchEulerDiscreteScheduler),
    "vae": partial(load_model, AutoencoderKL),
    **dict.fromkeys(TOKENIZERS, load_tokenizer),
    "text_encoder": partial(load_model, CLIPTextModelWithProjection),
    "text_encoder_2": partial(load_model, CLIPTextModelWithProjection),
    "text_encoder_3": partial(load_model, T5EncoderModel),
}
