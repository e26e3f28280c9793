"""The released models as blueprints, by their names in the catalogue.

Configs are those of the checkpoints' config.json where they differ from the classes' defaults; texts are
padded as the pipelines do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from keystep.plan.blueprint import Blueprint, Inputs, Latent, Video, chunks_of_17, every_fourth, only


def _opensora_inputs(config: Mapping[str, Any], latent: Latent, rows: int, dtype: torch.dtype) -> Inputs:
    """What the model is told of the video, one row for all."""
    del config, latent, rows
    return {name: torch.empty(1, dtype=dtype) for name in ("fps", "height", "width")}


def _vchitect_inputs(config: Mapping[str, Any], latent: Latent, rows: int, dtype: torch.dtype) -> Inputs:
    del latent
    return {"pooled_projections": torch.empty(rows, config["pooled_projection_dim"], dtype=dtype)}


def _rotary_inputs(config: Mapping[str, Any], latent: Latent, rows: int, dtype: torch.dtype) -> Inputs:
    """CogVideoX's rotary table (cos, sin), float32 whatever the dtype."""
    del rows, dtype
    frames, height, width = latent
    num_tokens = frames * (height // config["patch_size"]) * (width // config["patch_size"])
    table = torch.empty(num_tokens, config["attention_head_dim"], dtype=torch.float32)
    return {"image_rotary_emb": (table, table.clone())}


_LATTE = {
    "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "cross_attention_dim": 1152,
    "in_channels": 4, "out_channels": 8, "patch_size": 2, "sample_size": 64, "caption_channels": 4096,
    "attention_bias": True, "activation_fn": "gelu-approximate", "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False, "norm_eps": 1e-6, "num_embeds_ada_norm": 1000,
}  # fmt: skip
_LATTE_CLASS = "diffusers:LatteTransformer3DModel"
_PLAN_CLASS = "keystep.models.opensora_plan.transformer:OpenSoraPlanTransformer3DModel"
_COGVIDEOX_CLASS = "diffusers:CogVideoXTransformer3DModel"
_WAN_CLASS = "diffusers:WanTransformer3DModel"

BLUEPRINTS: dict[str, Blueprint] = {
    "opensora-1.2": Blueprint(
        "keystep.models.opensora.transformer:STDiT3", "depth", Video(480, 854, 51), 30, chunks_of_17, 300,
        pixel_multiple=1, more_inputs=_opensora_inputs,
    ),
    # 150 steps of PNDM are 159 evaluations: its first three steps take four each
    "opensora-plan-1.1": Blueprint(
        _PLAN_CLASS, "num_layers", Video(512, 512, 65), 150, only({65: 17, 221: 56}), 300, _LATTE,
        length="video_length", num_extra_evaluations=9,
    ),
    "vchitect-2.0": Blueprint(
        "keystep.models.vchitect.transformer:VchitectTransformer3DModel", "num_layers", Video(432, 768, 40),
        100, int, 77 + 256, more_inputs=_vchitect_inputs,
    ),
    "latte": Blueprint(
        _LATTE_CLASS, "num_layers", Video(512, 512, 16), 50, only({16: 16}), 120, _LATTE,
        length="video_length",
    ),
    "cogvideox-2b": Blueprint(
        _COGVIDEOX_CLASS, "num_layers", Video(480, 720, 49), 50, every_fourth, 226,
    ),
    "cogvideox-5b": Blueprint(
        _COGVIDEOX_CLASS, "num_layers", Video(480, 720, 49), 50, every_fourth, 226,
        {"num_layers": 42, "num_attention_heads": 48, "use_rotary_positional_embeddings": True},
        more_inputs=_rotary_inputs,
    ),
    "wan-2.1-1.3b": Blueprint(
        _WAN_CLASS, "num_layers", Video(480, 832, 81), 50, every_fourth, 512,
        {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960},
    ),
    "wan-2.1-14b": Blueprint(_WAN_CLASS, "num_layers", Video(720, 1280, 81), 50, every_fourth, 512),
}  # fmt: skip
