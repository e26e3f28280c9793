"""Finds and loads the parts of Open-Sora 1.2 as they were released: transformer, video autoencoder, T5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, T5EncoderModel

from keystep.errors import require
from keystep.models.checkpoint import State, find_folder, load_weights, read_weights
from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae_checkpoint import load_released_vae

TRANSFORMER = "hpcai-tech/OpenSora-STDiT-v3"
VAE = "hpcai-tech/OpenSora-VAE-v1.2"
TEXT_ENCODER = "DeepFloyd/t5-v1_1-xxl"
INDEX = "model_index.json"
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


def find_pipeline(source: str | Path) -> Path:
    """The folder of a pipeline, or of the released transformer, or of the released repositories together.

    Args:
        source: a folder or a hub id.

    Raises:
        ValueError: not found, or nothing there that can be loaded.
    """
    folder = find_folder(source, _FILES)
    if is_saved(folder) or any(folder.glob("*.safetensors")) or _part(folder, TRANSFORMER) is not None:
        return folder
    name = TRANSFORMER.rpartition("/")[2]
    allowed = f"a folder with {INDEX}, with the transformer's *.safetensors, or with a subfolder {name}"
    raise ValueError(f"checkpoint: given {str(source)!r}, allowed: {allowed}")


def is_saved(folder: Path) -> bool:
    """Whether `save_pretrained` wrote it."""
    return (folder / INDEX).is_file()


def load_released(
    folder: Path,
    dtype: torch.dtype,
    *,
    transformer: Any = None,
    vae: Any = None,
    text_encoder: Any = None,
    tokenizer: Any = None,
    scheduler: Any = None,
) -> dict[str, Any]:
    """The components of the pipeline. What is likeliest to be wrong is loaded first, T5 with its 19 GB last.

    Args:
        folder: from `find_pipeline`, not a saved pipeline.
        dtype: of all weights that are loaded.
        transformer: object; None = the one in the folder.
        vae: object, folder or hub id; None = the folder's subfolder of that name, else `VAE`.
        text_encoder: likewise, else `TEXT_ENCODER`.
        tokenizer: likewise, else where the text encoder is from.
        scheduler: object; None = a new one.

    Raises:
        ValueError: a part is not found, is of another model or version, does not fit its keys or the others.
    """
    text_source = text_encoder if _is_source(text_encoder) else _part(folder, TEXT_ENCODER) or TEXT_ENCODER
    if transformer is None:
        transformer = load_transformer(_part(folder, TRANSFORMER) or folder, dtype)
    if vae is None or _is_source(vae):
        vae = load_released_vae(vae or _part(folder, VAE) or VAE, dtype)
    _check_fit("vae", "latent_channels", vae.config["latent_channels"], transformer, "in_channels")
    if tokenizer is None or _is_source(tokenizer):
        tokenizer = load_tokenizer(tokenizer or text_source)
    if text_encoder is None or _is_source(text_encoder):
        text_encoder = load_text_encoder(text_source, dtype)
    _check_fit("text_encoder", "d_model", text_encoder.config.d_model, transformer, "caption_channels")
    return {
        "transformer": transformer,
        "vae": vae,
        "tokenizer": tokenizer,
        "text_encoder": text_encoder,
        "scheduler": scheduler or RectifiedFlowScheduler(),
    }


def load_transformer(folder: Path, dtype: torch.dtype) -> STDiT3:
    """Load the released transformer, on the CPU, in evaluation mode.

    Args:
        folder: holds weights and config.json (without one: the released values).
        dtype: of the weights.

    Raises:
        ValueError: another version of Open-Sora (named); missing, extra or mis-shaped keys.
    """
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    _refuse_other_config(config, folder)
    arguments = transformer_arguments(config)
    state = read_weights(folder)
    _refuse_other_keys(state, folder)
    with torch.device("meta"):
        transformer = STDiT3(**arguments)
    return load_weights(transformer, state, folder, dtype=dtype).eval()


def load_text_encoder(source: str | Path, dtype: torch.dtype) -> T5EncoderModel:
    """Load T5's encoder from a folder or hub id; weights that are missing are an error, not random.

    Raises:
        ValueError: not found, or not all weights are there.
    """
    encoder_class: Any = T5EncoderModel
    try:
        encoder, info = encoder_class.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except OSError as error:
        raise ValueError(f"text_encoder: given {str(source)!r}, which cannot be loaded: {error}") from error
    missing = sorted(info["missing_keys"])
    require(
        not missing, "text_encoder", str(source), f"a T5 encoder; this one lacks {', '.join(missing[:5])}"
    )
    return encoder.eval()


def load_tokenizer(source: str | Path) -> Any:
    """Load T5's tokenizer from a folder or hub id; ValueError if it cannot be."""
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"tokenizer: given {str(source)!r}, which cannot be loaded: {error}") from error


def _part(folder: Path, repository: str) -> Path | None:
    """The subfolder that holds a released repository."""
    path = folder / repository.rpartition("/")[2]
    return path if path.is_dir() else None


def _is_source(value: Any) -> bool:
    return isinstance(value, str | Path)


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
