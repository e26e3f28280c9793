"""The denoiser of Open-Sora-Plan 1.1: Latte with a temporal position table for longer videos.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/models/diffusion/latte/modeling_latte.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.embeddings import get_1d_sincos_pos_embed_from_grid
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401  looked up here on loading saved pipelines
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel

from keystep.models.config import arguments_for

TRAINED_FRAMES = 16  # latent frames of Latte, whose temporal positions longer videos are squeezed into
# Held by the released weights for training with dropped captions; no forward reads it.
UNUSED_KEYS = frozenset({"caption_projection.y_embedding"})
# Variants that the reference code has and the released models are not.
_FIXED = {
    "attention_type": "default",
    "compress_kv_factor": 1,
    "double_self_attention": False,
    "num_vector_embeds": None,
    "only_cross_attention": False,
    "patch_size_t": 1,
    "upcast_attention": False,
    "use_rope": False,
}
# Which kernel computes attention, lengths that callers pad to, and fields that no code path of theirs reads.
_IRRELEVANT = frozenset(
    {"attention_mode", "model_max_length", "norm_num_groups", "rope_scaling_type", "use_linear_projection"}
)


class OpenSoraPlanTransformer3DModel(LatteTransformer3DModel):
    """Latte's blocks; the temporal positions of more than 16 latent frames are spread over its range.

    Arguments and `forward` are those of `LatteTransformer3DModel`: latents (R, 4, T, H, W), timesteps (R,),
    text (R, L, C) -> (R, 8, T, H, W), noise and a learned variance; R rows = branches x samples, T must be
    `config.video_length`.
    """

    @functools.wraps(LatteTransformer3DModel.__init__)  # from_config reads the names of the arguments
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        length, width = self.config["video_length"], self.proj_out.in_features
        positions = torch.arange(length)[:, None] / temporal_scale(length)
        table = get_1d_sincos_pos_embed_from_grid(width, positions, output_type="pt")
        self.register_buffer("temp_pos_embed", table.float()[None], persistent=False)


def temporal_scale(video_length: int) -> int:
    """How many times denser temporal positions are than Latte's, in a video of so many latent frames."""
    return max(video_length // TRAINED_FRAMES, 1)


def transformer_arguments(released: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `OpenSoraPlanTransformer3DModel` from the released config.

    Raises:
        ValueError: a variant of the model keystep does not have, or an unknown field.
    """
    arguments = arguments_for(LatteTransformer3DModel.__init__, released, _FIXED, _IRRELEVANT)
    size = arguments.get("sample_size")
    if isinstance(size, (list, tuple)):
        arguments["sample_size"] = size[0]  # of (height, width); the position table is made from the height
    return arguments
