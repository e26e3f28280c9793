"""The transformers a golden may belong to, built from its nearest config and weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    LattePipeline,
    LatteTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from safetensors.torch import load_file

from .folder import keys_of, nearest, read_json


def no_extras(model: torch.nn.Module, latents: torch.Tensor) -> dict[str, Any]:
    """Nothing beside latents, text and timestep."""
    del model, latents
    return {}


def rotary_embedding(model: torch.nn.Module, latents: torch.Tensor) -> dict[str, Any]:
    """CogVideoX 5B: the rotary table of latents (rows, frames, channels, height, width)."""
    config: Any = model.config
    if not config.use_rotary_positional_embeddings:
        return {}
    frames, _, height, width = latents.shape[1:]
    grid = (height // config.patch_size, width // config.patch_size)
    table = get_3d_rotary_pos_embed(config.attention_head_dim, ((0, 0), grid), grid, frames)
    return {"image_rotary_emb": table}


@dataclass(frozen=True)
class Network:
    """A transformer class and what belongs to it.

    Attributes:
        preset: of FasterCache.
        cls: of diffusers.
        weights_have: part of a key that only this class has; tells files in another naming apart.
        pipeline, scheduler: classes for free runs.
        channels: axis of the latents' channels.
        size: arguments of the pipeline for latents of one shape.
        variance: whether the pipeline drops half of the output channels, as those of a learned variance.
        extras: further arguments of the forward.
    """

    preset: str
    cls: type[torch.nn.Module]
    weights_have: str
    pipeline: type[Any]
    scheduler: type[Any]
    channels: int
    size: Callable[[torch.Size], dict[str, int]]
    variance: bool = False
    extras: Callable[[torch.nn.Module, torch.Tensor], dict[str, Any]] = field(default=no_extras)


def latte_size(shape: torch.Size) -> dict[str, int]:
    """Latents are (batch, channels, frames, height, width); the pipeline wants pixels."""
    return {"video_length": shape[2], "height": 8 * shape[3], "width": 8 * shape[4]}


def cogvideox_size(shape: torch.Size) -> dict[str, int]:
    """Latents are (batch, frames, channels, height, width); the pipeline wants pixels."""
    return {"num_frames": 4 * (shape[1] - 1) + 1, "height": 8 * shape[3], "width": 8 * shape[4]}


NETWORKS = (
    Network(
        "latte",
        LatteTransformer3DModel,
        "temporal_transformer_blocks.0.attn1.to_q.weight",
        LattePipeline,
        DDIMScheduler,
        1,
        latte_size,
        variance=True,
    ),
    Network(
        "cogvideox",
        CogVideoXTransformer3DModel,
        "patch_embed.text_proj.weight",
        CogVideoXPipeline,
        CogVideoXDDIMScheduler,
        2,
        cogvideox_size,
        extras=rotary_embedding,
    ),
)


@dataclass(frozen=True)
class Source:
    """Where a network's config and weights are."""

    network: Network
    config: dict[str, Any]
    weights: Path

    def build(self) -> torch.nn.Module:
        """The transformer, strictly loaded, in float32."""
        model = self.network.cls(**self.config)
        model.load_state_dict(load_file(self.weights), strict=True)
        return model.eval()


def find_source(folder: Path) -> Source | str:
    """The network a folder's cases are for, or the reason why there is none that keystep runs.

    Raises:
        FileNotFoundError: if there is no config, or no weights for a known network.
    """
    configs = [
        path
        for path in nearest(folder, "*transformer*config*.json", "config*.json")
        if "scheduler" not in path.name
    ]
    if not configs:
        raise FileNotFoundError(f"no transformer config in {folder.name}/ or its parent")
    weights = nearest(folder, "*transformer*weights*.safetensors", "weights*.safetensors")
    for path in configs:
        config = {key: value for key, value in read_json(path).items() if not key.startswith("_")}
        for network in NETWORKS:
            if set(config) <= set(inspect.signature(network.cls.__init__).parameters):
                return Source(network, config, weights_of(network, weights, folder))
    return f"{configs[0].name} describes a native model that keystep does not run yet"


def weights_of(network: Network, candidates: list[Path], folder: Path) -> Path:
    """The weights in the naming of `network`."""
    for path in candidates:
        if network.weights_have in keys_of(path):
            return path
    raise FileNotFoundError(f"no weights of {network.cls.__name__} in {folder.name}/ or its parent")
