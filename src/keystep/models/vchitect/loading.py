"""Vchitect-2.0's parts from a folder or the hub; the released layout is that of `save_pretrained` too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, CLIPTextModelWithProjection, T5EncoderModel

from keystep.errors import require, unknown
from keystep.models.checkpoint import find_folder, load_weights, read_weights
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

MODELS: dict[str, Any] = {
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModelWithProjection,
    "text_encoder_2": CLIPTextModelWithProjection,
    "text_encoder_3": T5EncoderModel,
}
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
PARTS = ("transformer", "scheduler", *MODELS, *TOKENIZERS)


def load_parts(source: str | Path, dtype: torch.dtype, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parts of the pipeline, each from the subfolder of its name with the config there.

    Args:
        source: a folder, or a hub id such as `Vchitect/Vchitect-2.0-2B`.
        dtype: of all weights.
        given: parts that are there already, by name; they are not loaded.

    Raises:
        ValueError: a part's name is unknown, a subfolder is missing, or weights do not fit.
    """
    for name in given:
        if name not in PARTS:
            raise unknown("part of VchitectPipeline", name, PARTS)
    wanted = [name for name in PARTS if name not in given]
    folder = find_folder(source, [f"{name}/*" for name in wanted])
    missing = [name for name in wanted if not (folder / name).is_dir()]
    require(not missing, "checkpoint", str(source), f"a folder with the subfolders {', '.join(missing)} too")
    return {**given, **{name: load_part(name, folder / name, dtype) for name in wanted}}


def load_part(name: str, folder: Path, dtype: torch.dtype) -> Any:
    """One part by its name in the pipeline."""
    if name == "transformer":
        return load_transformer(folder, dtype)
    if name == "scheduler":
        return FlowMatchEulerDiscreteScheduler.from_pretrained(folder)
    if name in TOKENIZERS:
        return AutoTokenizer.from_pretrained(folder)
    return load_model(MODELS[name], folder, dtype)


def load_transformer(folder: Path, dtype: torch.dtype) -> VchitectTransformer3DModel:
    """The transformer of a folder with `config.json` and weights; every key must fit.

    Raises:
        ValueError: lists missing, extra and mis-shaped keys.
    """
    config: Any = VchitectTransformer3DModel.load_config(folder)
    with torch.device("meta"):
        model: Any = VchitectTransformer3DModel.from_config(config)
    return load_weights(model, read_weights(folder), folder, dtype=dtype).eval()


def load_model(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers; both would fill in random weights where a file has none.

    Raises:
        ValueError: lists the missing keys.
    """
    model, info = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    require(not missing, f"checkpoint {folder}, missing keys", missing, f"all keys of {cls.__name__}")
    return model.eval()
