"""The released checkpoint's config.json, as arguments of `STDiT3`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keystep.models.config import arguments_for
from keystep.models.opensora.transformer import STDiT3

# How the model was trained or run, or which library saved it: nothing that its outputs depend on.
_IRRELEVANT = frozenset(
    {
        "architectures",
        "auto_map",
        "class_dropout_prob",
        "drop_path",
        "dtype",
        "enable_flash_attn",
        "enable_layernorm_kernel",
        "enable_sequence_parallelism",
        "enable_sequence_parallel",
        "force_huggingface",
        "freeze_y_embedder",
        "input_size",
        "only_train_temporal",
        "torch_dtype",
        "transformers_version",
    }
)
# What the released model has and `STDiT3` is written for.
_REQUIRED = {"model_type": "STDiT3", "pred_sigma": True, "qk_norm": True, "skip_y_embedder": False}


def transformer_arguments(released: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `STDiT3` from the released config.

    Args:
        released: content of the checkpoint's config.json.

    Raises:
        ValueError: a field that is not known, or a variant of the model that keystep does not have.
    """
    return arguments_for(STDiT3.__init__, released, _REQUIRED, _IRRELEVANT)
