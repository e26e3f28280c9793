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
    PNDMScheduler,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from safetensors.torch import load_file

from keystep.models.opensora_plan.loading import build_transformer
from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.transformer import OpenSoraPlanTransformer3DModel

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


def is_open_sora_plan(config: dict[str, Any]) -> bool:
    """Whether a config is a released one of Open-Sora-Plan, which gives the size as (height, width)."""
    return isinstance(config.get("sample_size"), list) and "compress_kv_factor" in config


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
        is_config: tells configs in a format of their own; None = they hold arguments of `cls`.
        build: makes the transformer from such a config, weights and their file.
        has_default_scheduler: whether a folder without a scheduler config means the class's defaults.
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
    is_config: Callable[[dict[str, Any]], bool] | None = None
    build: Callable[[dict[str, Any], dict[str, torch.Tensor], Path], torch.nn.Module] | None = None
    has_default_scheduler: bool = False

    def reads(self, config: dict[str, Any]) -> bool:
        """Whether a config is one of this class."""
        if self.is_config is not None:
            return self.is_config(config)
        return set(config) <= set(inspect.signature(self.cls.__init__).parameters)


def latte_size(shape: torch.Size) -> dict[str, int]:
    """Latents are (batch, channels, frames, height, width); the pipeline wants pixels."""
    return {"video_length": shape[2], "height": 8 * shape[3], "width": 8 * shape[4]}


def opensora_plan_size(shape: torch.Size) -> dict[str, int]:
    """Latents are (batch, channels, frames, height, width); the pipeline wants pixels and video frames."""
    return {"num_frames": 4 * (shape[2] - 1) + 1, "height": 8 * shape[3], "width": 8 * shape[4]}


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
    Network(
        "opensora-plan",
        OpenSoraPlanTransformer3DModel,
        "temporal_transformer_blocks.0.attn1.to_q.weight",
        OpenSoraPlanPipeline,
        PNDMScheduler,
        1,
        opensora_plan_size,
        variance=True,
        is_config=is_open_sora_plan,
        build=build_transformer,
        has_default_scheduler=True,
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
        state = load_file(self.weights)
        if self.network.build is not None:
            return self.network.build(self.config, state, self.weights)
        model = self.network.cls(**self.config)
        model.load_state_dict(state, strict=True)
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
            if network.reads(config):
                return Source(network, config, weights_of(network, weights, folder))
    return f"{configs[0].name} describes a native model that keystep does not run yet"


def weights_of(network: Network, candidates: list[Path], folder: Path) -> Path:
    """The weights in the naming of `network`."""
    for path in candidates:
        if network.weights_have in keys_of(path):
            return path
    raise FileNotFoundError(f"no weights of {network.cls.__name__} in {folder.name}/ or its parent")
