"""The meta device: models without weights, and attention on it as the fused kernels do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from keystep.models.catalogue import import_name
from keystep.plan.cost import AttentionCall


def build_transformer(transformer: str, config: Mapping[str, Any], dtype: torch.dtype) -> nn.Module:
    """A model without weights.

    Args:
        transformer: `module:class`.
        config: its arguments.
        dtype: of the weights, but for parts that the class keeps in float32.
    """
    cls = import_name(transformer)
    with torch.device("meta"):
        module: nn.Module = cls(**config)
    nn.Module.to(module, dtype)  # diffusers' own `to` warns of what is put right below
    kept = getattr(cls, "_keep_in_fp32_modules", None) or ()
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point() and set(kept) & set(name.split(".")):
            value.data = value.data.float()
    return module.eval()


class FusedAttention(TorchFunctionMode):
    """Inside the `with` block attention goes to a fused kernel, which never holds queries x keys scores.

    On the meta device torch takes attention apart into matrix products, so memory would be off by far.

    Attributes:
        calls: shapes of the queries and keys of every attention so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AttentionCall] = []

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one function."""
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        return func(*args, **kwargs)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> torch.Tensor:
        self.calls.append((query.shape, key.shape))
        assert not enable_gqa, "no model here shares keys among heads"
        # the one fused kernel with a formula for FLOPs and a rule for shapes that takes any mask
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return kernel(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
