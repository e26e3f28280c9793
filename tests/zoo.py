"""Tiny random-weight pipelines of the real diffusers classes, and how to call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LattePipeline,
    LatteTransformer3DModel,
    WanPipeline,
    WanTransformer3DModel,
)

from keystep.models.opensora.pipeline import OpenSoraPipeline
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.transformer import OpenSoraPlanTransformer3DModel
from keystep.models.vchitect.pipeline import VchitectPipeline
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

STEPS = 16
TEXT = 7
TEXT_WIDTH = 20


@dataclass(frozen=True, eq=False)  # compared and hashed by identity
class Zoo:
    """A way to build a pipeline and the arguments that belong to its size."""

    name: str
    build: Callable[[], Any]
    size: dict[str, int]
    latent: tuple[int, ...]  # one sample
    layouts: tuple[str, ...]  # what its pipeline does
    is_pooled: bool = False  # takes a pooled embedding of the prompt too
    has_negative: bool = True  # else guidance is against a text of its own
    numbers: dict[str, float] | None = None  # further arguments of the bare transformer, a number a row

    def texts(self, batch: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Prompt embeddings, also a negative one where the pipeline itself would not take it."""
        return {
            name: torch.randn(batch, TEXT, TEXT_WIDTH, generator=generator)
            for name in ("prompt_embeds", "negative_prompt_embeds")
        }

    def arguments(
        self, batch: int = 1, seed: int = 0, steps: int = STEPS, scale: float = 4.0
    ) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(seed)
        texts = self.texts(batch, generator)
        pooled = {name.replace("prompt", "pooled_prompt"): text.mean(1) for name, text in texts.items()}
        return {
            **{name: text for name, text in texts.items() if self.has_negative or "negative" not in name},
            **(pooled if self.is_pooled else {}),
            "latents": torch.randn(batch, *self.latent, generator=generator),
            "num_inference_steps": steps,
            "guidance_scale": scale,
            "generator": generator,
            "output_type": "latent",
            **({"prompt": None} if self.name != "wan" else {}),
            **({"negative_prompt": None} if self.name != "wan" and self.has_negative else {}),
            **self.size,
        }

    def sample(self, pipe: Any, call: dict[str, Any] | None = None, **kwargs: Any) -> torch.Tensor:
        """Latents of one generation; `kwargs` go to `arguments`, `call` to the pipeline as it is."""
        with torch.no_grad():
            return pipe(**self.arguments(**kwargs), **(call or {})).frames

    def inputs(self, pipe: Any, x: torch.Tensor, time: float, text: torch.Tensor) -> dict[str, Any]:
        """Arguments of one call of the bare transformer, as the pipeline would pass them."""
        arguments = {
            "hidden_states": x,
            "timestep": torch.full((x.shape[0],), time),
            "encoder_hidden_states": text,
            "return_dict": False,
        }
        if self.is_pooled:
            arguments["pooled_projections"] = text.mean(1)
        for name, value in (self.numbers or {}).items():
            arguments[name] = torch.full((x.shape[0],), value)
        config = pipe.transformer.config
        if config.get("use_rotary_positional_embeddings"):
            arguments["image_rotary_emb"] = pipe._prepare_rotary_positional_embeddings(
                self.size["height"], self.size["width"], x.shape[1], torch.device("cpu")
            )
        return arguments


def randomize(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights everywhere, also where training begins with zeros, so that every part matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.3 if parameter.ndim < 2 or "scale_shift" in name else 1.2 / parameter[0].numel() ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "norm" in name and name.endswith("weight") and parameter.ndim == 1:
                parameter.add_(1.0)
    return module.eval()


def latte_transformer(cls: Any = LatteTransformer3DModel) -> torch.nn.Module:
    transformer = cls(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=4,
        cross_attention_dim=16,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_WIDTH,
        video_length=3,
    )
    return randomize(transformer)


def linear_ddim() -> DDIMScheduler:
    return DDIMScheduler(beta_schedule="linear", beta_end=0.02, clip_sample=False)


def latte() -> LattePipeline:
    return quiet(LattePipeline(None, None, None, latte_transformer(), linear_ddim()))


def opensora_plan() -> OpenSoraPlanPipeline:
    transformer = latte_transformer(OpenSoraPlanTransformer3DModel)
    return quiet(OpenSoraPlanPipeline(None, None, None, transformer, linear_ddim()))


def cogvideox(**config: Any) -> CogVideoXPipeline:
    options = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 4,
        "time_embed_dim": 12,
        "text_embed_dim": TEXT_WIDTH,
        "max_text_seq_length": TEXT,
        "sample_width": 8,
        "sample_height": 8,
        "sample_frames": 9,
        "patch_size": 2,
    }
    transformer = CogVideoXTransformer3DModel(**options | config)
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    return quiet(CogVideoXPipeline(None, None, None, randomize(transformer), scheduler))


def cogvideox5b() -> CogVideoXPipeline:
    return cogvideox(use_rotary_positional_embeddings=True)


def cogvideox15() -> CogVideoXPipeline:
    return cogvideox(
        use_rotary_positional_embeddings=True, patch_size_t=2, patch_bias=False, sample_frames=13
    )


def wan_transformer(seed: int = 0) -> torch.nn.Module:
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=4,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )
    return randomize(transformer, seed)


def wan() -> WanPipeline:
    return quiet(WanPipeline(None, None, None, FlowMatchEulerDiscreteScheduler(shift=3.0), wan_transformer()))


def wan22() -> WanPipeline:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return quiet(
        WanPipeline(
            None,
            None,
            None,
            scheduler,
            wan_transformer(),
            transformer_2=wan_transformer(1),
            boundary_ratio=0.8,
        )
    )


def vchitect() -> VchitectPipeline:
    transformer = VchitectTransformer3DModel(
        sample_size=8,
        in_channels=4,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=TEXT_WIDTH,
        out_channels=4,
        pos_embed_max_size=6,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return quiet(VchitectPipeline(randomize(transformer), scheduler, *[None] * 7))


def opensora() -> OpenSoraPipeline:
    torch.manual_seed(0)  # the text of the unconditional branch is a buffer of the transformer
    transformer = STDiT3(
        hidden_size=16, depth=4, num_heads=2, caption_channels=TEXT_WIDTH, model_max_length=TEXT
    )
    vae = AutoencoderKLOpenSora(
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        norm_num_groups=4,
        temporal_widths=(4, 4, 4, 4),
        temporal_layers_per_block=1,
        temporal_norm_num_groups=4,
    )
    return quiet(OpenSoraPipeline(None, None, randomize(transformer), vae.eval(), RectifiedFlowScheduler()))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


LATTE = Zoo("latte", latte, {"video_length": 3, "height": 64, "width": 64}, (4, 3, 8, 8), ("batched",))
OPENSORA_PLAN = Zoo(
    "opensora-plan", opensora_plan, {"num_frames": 9, "height": 64, "width": 64}, (4, 3, 8, 8), ("batched",)
)
COGVIDEOX = Zoo(
    "cogvideox", cogvideox, {"num_frames": 9, "height": 64, "width": 64}, (3, 4, 8, 8), ("batched",)
)
COGVIDEOX5B = Zoo(
    "cogvideox5b", cogvideox5b, {"num_frames": 9, "height": 64, "width": 64}, (3, 4, 8, 8), ("batched",)
)
COGVIDEOX15 = Zoo(
    "cogvideox15", cogvideox15, {"num_frames": 13, "height": 64, "width": 64}, (4, 4, 8, 8), ("batched",)
)
WAN = Zoo("wan", wan, {"num_frames": 9, "height": 64, "width": 64}, (4, 3, 8, 8), ("separate",))
WAN22 = Zoo("wan22", wan22, {"num_frames": 9, "height": 64, "width": 64}, (4, 3, 8, 8), ("separate",))
OPENSORA = Zoo(
    "opensora",
    opensora,
    {"num_frames": 17, "height": 64, "width": 64},
    (4, 5, 8, 8),
    ("batched",),
    has_negative=False,
    numbers={"fps": 24.0, "height": 64.0, "width": 64.0},
)
VCHITECT = Zoo(
    "vchitect",
    vchitect,
    {"num_frames": 3, "height": 64, "width": 64},
    (3, 4, 8, 8),
    ("separate",),
    is_pooled=True,
)
ZOO = (LATTE, COGVIDEOX, COGVIDEOX5B, COGVIDEOX15, WAN, WAN22, VCHITECT, OPENSORA_PLAN, OPENSORA)
