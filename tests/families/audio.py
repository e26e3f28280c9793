"""Families that make a video with its sound: LTX-2, Kandinsky 6."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.configuration_utils import FrozenDict

from tests.families.parts import CHANNELS, Family, StandIn, Vae, embeddings, masks, picture
from tests.zoo import TEXT_WIDTH, quiet, randomize

SOUND = 4  # channels of the audio latent


class Sound(StandIn):
    """Stands for the audio autoencoder: nothing is decoded, so its sizes are all there is."""

    def __init__(self) -> None:
        super().__init__()
        self.mel_compression_ratio = self.temporal_compression_ratio = 4
        self.latent_hop_length = 640
        self.config = FrozenDict(mel_bins=8, latent_channels=2, sample_rate=16000, mel_hop_length=160)
        self.register_buffer("latents_mean", torch.zeros(SOUND))
        self.register_buffer("latents_std", torch.ones(SOUND))


class Connectors(StandIn):
    """Stands for the adapters of the text: hands the embeddings on to both modalities."""

    def forward(self, text: torch.Tensor, mask: torch.Tensor, padding_side: str) -> tuple[torch.Tensor, ...]:
        """(video's text, audio's text, mask)."""
        del padding_side
        return text, text.flip(-1), mask


def ltx2(cls: Any) -> Any:
    model = LTX2VideoTransformer3DModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        audio_in_channels=SOUND,
        audio_out_channels=SOUND,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=3,
        caption_channels=TEXT_WIDTH,
        rope_double_precision=False,
        perturbed_attn=True,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return quiet(cls(scheduler, Vae(), Sound(), None, None, Connectors(), randomize(model), None))


def ltx2_text(batch: int, is_guided: bool) -> dict[str, Any]:
    """With all three guidances, or with none."""
    scales = {"guidance_scale": 4.0, "stg_scale": 1.0, "modality_scale": 3.0}
    off = {"guidance_scale": 1.0, "stg_scale": 0.0, "modality_scale": 1.0}
    chosen = scales if is_guided else off
    return {
        **embeddings(batch, "prompt_embeds"),
        **masks(batch, "prompt_attention_mask"),
        **chosen,
        **{f"audio_{name}": value for name, value in chosen.items()},
        "spatio_temporal_guidance_blocks": [1],
    }


def ltx2_image(batch: int, is_guided: bool) -> dict[str, Any]:
    """With classifier-free guidance only."""
    scales = {"stg_scale": 0.0, "modality_scale": 1.0, "audio_stg_scale": 0.0, "audio_modality_scale": 1.0}
    return {**ltx2_text(batch, is_guided), **scales, "image": picture(batch), "image_crf": 0}


def kandinsky6() -> Any:
    model = Kandinsky6Transformer3DModel(
        in_visual_dim=CHANNELS,
        out_visual_dim=CHANNELS,
        in_text_dim=TEXT_WIDTH,
        in_text_dim2=TEXT_WIDTH,
        time_dim=16,
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=3,
        axes_dims=(4, 4, 4),
        in_audio_dim=SOUND,
        out_audio_dim=SOUND,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    text = [None] * 4  # two encoders and their tokenizers
    return quiet(Kandinsky6TI2VAPipeline(randomize(model), Vae(), *text, scheduler, Sound(), StandIn()))


def kandinsky6_text(batch: int, is_guided: bool) -> dict[str, Any]:
    pooled = embeddings(batch, "pooled_prompt_embeds", length=1, seed=1)
    return {
        "guidance_scale": 4.0 if is_guided else 1.0,
        **embeddings(batch, "prompt_embeds"),
        **{name: value[:, 0] for name, value in pooled.items()},
        "frame_rate": 24.0,
    }


def kandinsky6_silent(batch: int, is_guided: bool) -> dict[str, Any]:
    return {**kandinsky6_text(batch, is_guided), "sample_audio": False}


FAMILIES = (
    Family("ltx-2", lambda: ltx2(LTX2Pipeline), ltx2_text),
    Family("ltx-2-i2v", lambda: ltx2(LTX2ImageToVideoPipeline), ltx2_image),
    Family("kandinsky-6", kandinsky6, kandinsky6_text),
    Family("kandinsky-6-silent", kandinsky6, kandinsky6_silent),
)
