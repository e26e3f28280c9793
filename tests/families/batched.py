"""Families with both guidance branches in one batch."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    CogVideoXDDIMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
    ConsisIDTransformer3DModel,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SanaImageToVideoPipeline,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
)
from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline  # OpenCV is for its faces only

from tests.families.parts import CHANNELS, Family, Vae, embeddings, masks, picture
from tests.zoo import TEXT, TEXT_WIDTH, quiet, randomize

HEADS = {"num_attention_heads": 2, "attention_head_dim": 12}


def flow(**config: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=3.0, **config)


def text(batch: int, is_guided: bool) -> dict[str, Any]:
    return {
        "guidance_scale": 4.0 if is_guided else 1.0,
        "negative_prompt": None,
        **embeddings(batch, "prompt_embeds"),
    }


def masked(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), **masks(batch, "prompt_attention_mask")}


# ------------------------------------------------------------------ LTX


def ltx_transformer() -> Any:
    model = LTXVideoTransformer3DModel(
        **HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        cross_attention_dim=24,
        num_layers=3,
        caption_channels=TEXT_WIDTH,
    )
    return randomize(model)


def ltx(cls: Any) -> Any:
    scheduler = flow(use_dynamic_shifting=cls is not LTXConditionPipeline)
    return quiet(cls(scheduler, Vae(), None, None, ltx_transformer()))


def ltx_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**masked(batch, is_guided), "image": picture(batch)}


# ------------------------------------------------------------------ Mochi, Allegro, EasyAnimate, SANA-Video


MOCHI_WIDTH = 16  # pooled by 8 heads


def mochi() -> Any:
    model = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=3,
        pooled_projection_dim=16,
        in_channels=CHANNELS,
        text_embed_dim=MOCHI_WIDTH,
        time_embed_dim=8,
        activation_fn="swiglu",
    )
    return quiet(MochiPipeline(flow(invert_sigmas=True), None, None, None, randomize(model)))


def mochi_text(batch: int, is_guided: bool) -> dict[str, Any]:
    mask = {name: value.bool() for name, value in masks(batch, "prompt_attention_mask").items()}
    return {**text(batch, is_guided), **embeddings(batch, "prompt_embeds", width=MOCHI_WIDTH), **mask}


def allegro() -> Any:
    model = AllegroTransformer3DModel(
        **HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        cross_attention_dim=24,
        sample_width=8,
        sample_height=8,
        sample_frames=3,
        caption_channels=TEXT_WIDTH,
    )
    scheduler = EulerAncestralDiscreteScheduler()
    return quiet(AllegroPipeline(None, None, Vae(), randomize(model), scheduler))


def easyanimate() -> Any:
    model = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        patch_size=2,
        sample_width=8,
        sample_height=8,
        num_layers=3,
        mmdit_layers=2,
        time_embed_dim=8,
        text_embed_dim=TEXT_WIDTH,
    )
    return quiet(EasyAnimatePipeline(Vae(), None, None, randomize(model), flow()))


def sana(cls: Any) -> Any:
    model = SanaVideoTransformer3DModel(
        **HEADS,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        num_cross_attention_heads=2,
        cross_attention_head_dim=12,
        cross_attention_dim=24,
        caption_channels=TEXT_WIDTH,
        rope_max_seq_len=32,
    )
    return quiet(cls(None, None, Vae(), randomize(model), flow()))


SANA_SIZE = {"height": 64, "width": 64, "frames": 9}


def sana_text(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**masked(batch, is_guided), "use_resolution_binning": False}


def sana_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**sana_text(batch, is_guided), "image": picture()}


# ------------------------------------------------------------------ CogVideoX from images or videos, ConsisID


COGVIDEOX = HEADS | {
    "attention_head_dim": 16,
    "out_channels": CHANNELS,
    "num_layers": 3,
    "time_embed_dim": 12,
    "text_embed_dim": TEXT_WIDTH,
    "max_text_seq_length": TEXT,
    "sample_width": 8,
    "sample_height": 8,
    "sample_frames": 9,
    "patch_size": 2,
    "use_rotary_positional_embeddings": True,
}


def ddim() -> CogVideoXDDIMScheduler:
    return CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False)


def cogvideox_i2v() -> Any:
    model = CogVideoXTransformer3DModel(**COGVIDEOX, in_channels=2 * CHANNELS)
    return quiet(CogVideoXImageToVideoPipeline(None, None, Vae(), randomize(model), ddim()))


def cogvideox_v2v() -> Any:
    model = CogVideoXTransformer3DModel(**COGVIDEOX, in_channels=CHANNELS)
    return quiet(CogVideoXVideoToVideoPipeline(None, None, Vae(), randomize(model), ddim()))


def consisid() -> Any:
    model = ConsisIDTransformer3DModel(
        **COGVIDEOX | {"num_attention_heads": 3, "num_layers": 4}, in_channels=2 * CHANNELS,
        is_train_face=True,
        cross_attn_interval=2, cross_attn_dim_head=8, cross_attn_num_heads=2,
        LFE_id_dim=6, LFE_vit_dim=6, LFE_depth=5, LFE_dim_head=8, LFE_num_heads=2, LFE_num_id_token=2,
        LFE_num_querie=2, LFE_output_dim=32, LFE_ff_mult=1, LFE_num_scale=1,
    )  # fmt: skip
    return quiet(ConsisIDPipeline(None, None, Vae(), randomize(model), ddim()))


def cogvideox_image(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**text(batch, is_guided), "image": picture(batch)}


def consisid_image(batch: int, is_guided: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    rows = batch * (1 + is_guided)
    return {
        **cogvideox_image(batch, is_guided),
        "id_cond": torch.randn(rows, 6, generator=generator),
        "id_vit_hidden": [torch.randn(rows, 4, 6, generator=generator)],
    }


def cogvideox_video(batch: int, is_guided: bool) -> dict[str, Any]:
    frames = [frame.movedim(0, -1).numpy() for frame in picture(9)]
    return {**text(batch, is_guided), "video": frames, "strength": 0.9}


FRAMELESS = {"height": 64, "width": 64}
FAMILIES = (
    Family("ltx", lambda: ltx(LTXPipeline), masked),
    Family("ltx-i2v", lambda: ltx(LTXImageToVideoPipeline), ltx_image),
    Family("ltx-condition", lambda: ltx(LTXConditionPipeline), ltx_image),
    Family("mochi", mochi, mochi_text),
    Family("allegro", allegro, masked),
    Family("easyanimate", easyanimate, masked),
    Family("sana-video", lambda: sana(SanaVideoPipeline), sana_text, SANA_SIZE),
    Family("sana-video-i2v", lambda: sana(SanaImageToVideoPipeline), sana_image, SANA_SIZE),
    Family("cogvideox-i2v", cogvideox_i2v, cogvideox_image),
    Family("cogvideox-v2v", cogvideox_v2v, cogvideox_video, FRAMELESS, max_batch=1),
    Family("consisid", consisid, consisid_image),
)
