"""Families that call their transformer once for each guidance branch: Cosmos, Kandinsky 5."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    Cosmos2_5_PredictBasePipeline,
    Cosmos2VideoToWorldPipeline,
    CosmosTextToWorldPipeline,
    CosmosTransformer3DModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5I2VPipeline,
    Kandinsky5T2VPipeline,
    Kandinsky5Transformer3DModel,
    UniPCMultistepScheduler,
)

from tests.families.parts import CHANNELS, SIZE, Family, Safety, Vae, embeddings, picture
from tests.zoo import TEXT, TEXT_WIDTH, quiet, randomize


def text(batch: int, is_guided: bool) -> dict[str, Any]:
    return {"guidance_scale": 4.0 if is_guided else 1.0, **embeddings(batch, "prompt_embeds")}


def with_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "image": picture(batch)}


def cosmos_transformer(channels: int, **config: Any) -> Any:
    model = CosmosTransformer3DModel(
        in_channels=channels,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        text_embed_dim=TEXT_WIDTH,
        adaln_lora_dim=4,
        max_size=(4, 8, 8),
        concat_padding_mask=False,  # which needs torchvision
        **config,
    )
    return randomize(model)


def cosmos() -> Any:
    scheduler = EDMEulerScheduler(
        sigma_min=0.002, sigma_max=80, sigma_data=0.5, sigma_schedule="karras", prediction_type="epsilon"
    )
    model = cosmos_transformer(CHANNELS)
    return quiet(CosmosTextToWorldPipeline(None, None, model, Vae(), scheduler, Safety()))


def cosmos2() -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True)
    model = cosmos_transformer(CHANNELS + 1, extra_pos_embed_type=None)
    return quiet(Cosmos2VideoToWorldPipeline(None, None, model, Vae(), scheduler, Safety()))


def cosmos25() -> Any:
    scheduler = UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    model = cosmos_transformer(CHANNELS + 1, extra_pos_embed_type=None)
    return quiet(Cosmos2_5_PredictBasePipeline(None, None, model, Vae(), scheduler, Safety()))


def kandinsky(cls: Any, **config: Any) -> Any:
    model = Kandinsky5Transformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_text_dim=TEXT_WIDTH,
        in_text_dim2=TEXT_WIDTH,
        time_dim=16,
        patch_size=(1, 2, 2),
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(4, 4, 4),
        **config,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return quiet(cls(randomize(model), Vae(), None, None, None, None, scheduler))


def kandinsky_text(batch: int, is_guided: bool) -> dict[str, Any]:
    pooled = embeddings(batch, "prompt_embeds_clip", length=1, seed=1)
    lengths = torch.arange(batch + 1, dtype=torch.int32) * TEXT
    return {
        "guidance_scale": 4.0 if is_guided else 1.0,
        **embeddings(batch, "prompt_embeds_qwen"),
        **{name: value[:, 0] for name, value in pooled.items()},
        "prompt_cu_seqlens": lengths,
        "negative_prompt_cu_seqlens": lengths,
    }


def kandinsky_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**kandinsky_text(batch, is_guided), "image": picture()}


FAMILIES = (
    Family("cosmos", cosmos, text),
    Family("cosmos-2", cosmos2, with_image),
    Family("cosmos-2.5", cosmos25, text),
    Family("kandinsky-5", lambda: kandinsky(Kandinsky5T2VPipeline), kandinsky_text),
    Family(
        "kandinsky-5-i2v",
        lambda: kandinsky(Kandinsky5I2VPipeline, visual_cond=True),
        kandinsky_image,
        SIZE | {"num_frames": 21},  # it levels the first four latent frames to those behind them
    ),
)
