"""Attention over the tokens of all ranks, in the place of what a module would do alone.

It takes the place of the attention's processor, inside of whatever skips the module: a skipped attention
sends nothing.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from keystep.ranks.exchange import to_tokens, to_units
from keystep.ranks.layout import Layout
from keystep.ranks.plans import Exchange
from keystep.ranks.shares import shares

Attend = Callable[..., torch.Tensor]
SDPA: Attend = F.scaled_dot_product_attention


class Exchanged:
    """The exchange around one attention module.

    Args:
        site: its name in the plan; modules of one name have equally many tokens.
        how: what is exchanged.
        layout: tells how the tokens of the call under way lie.
    """

    def __init__(self, site: str, how: Exchange, layout: Callable[[], Layout]) -> None:
        self.site, self.how = site, how
        self._layout = layout

    @torch.compiler.disable(reason="ranks exchange tokens here: compile blocks with fullgraph=False")
    def __call__(self, attend: Attend, module: Any, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """What `attend(module, hidden, ...)` would give if all tokens were here: this rank's part of it."""
        if self.how == "rows":
            return self._rows(functools.partial(attend, module), hidden, *args, **kwargs)
        with _Intercepted(self._heads if self.how == "heads" else self._keys) as intercepted:
            output = attend(module, hidden, *args, **kwargs)
        if not intercepted.num_calls:
            raise RuntimeError(
                f"{self.site}: its attention does not go through scaled_dot_product_attention, so its ranks "
                "cannot exchange anything; choose that backend: transformer.set_attention_backend('native')"
            )
        return output

    def _rows(self, attend: Attend, x_RnC: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        layout = self._layout()
        num_tokens = layout.tokens(self.site, x_RnC.shape[1])
        x_rNC = to_units(layout.group, x_RnC, num_tokens)
        if len(x_rNC):
            x_rNC = attend(x_rNC, *args, **kwargs)
        return to_tokens(layout.group, x_rNC, len(x_RnC), num_tokens)

    def _heads(
        self, q_RHnD: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """`scaled_dot_product_attention` of all heads and this rank's tokens."""
        mask = kwargs.pop("attn_mask", None)
        is_for_keys = mask is None or mask.shape[1:] == (1, 1, k.shape[2])
        self._check(args, kwargs, is_for_keys and q_RHnD.shape == k.shape == v.shape)
        layout = self._layout()
        num_tokens = layout.tokens(self.site, q_RHnD.shape[2])
        if mask is not None:
            mask = self._units(layout, layout.whole_mask(mask, num_tokens), q_RHnD.shape[:2])
        joint_UnF = torch.cat([q_RHnD, k, v], dim=-1).flatten(0, 1)
        joint_uNF = to_units(layout.group, joint_UnF, num_tokens)
        q, k, v = joint_uNF.chunk(3, dim=-1)
        x_uND = SDPA(q[None], k[None], v[None], attn_mask=mask, **kwargs)[0] if len(q) else q
        x_UnD = to_tokens(layout.group, x_uND, len(joint_UnF), num_tokens)
        return x_UnD.unflatten(0, q_RHnD.shape[:2])

    @staticmethod
    def _units(layout: Layout, mask: torch.Tensor, rows_and_heads: torch.Size) -> torch.Tensor:
        """The mask of this rank's heads, (1, u, 1, N), of one for all heads of a row, (R, 1, 1, N)."""
        units = shares(rows_and_heads.numel(), layout.group.size)
        every = mask.expand(*rows_and_heads, 1, -1).flatten(0, 1)
        return every.split(units)[layout.group.rank][None]

    def _keys(
        self, q: torch.Tensor, k_RHnD: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """`scaled_dot_product_attention` of this rank's queries and the keys of all ranks."""
        self._check(args, kwargs, k_RHnD.shape == v.shape)
        layout = self._layout()
        num_tokens = layout.tokens(self.site, k_RHnD.shape[2])
        keys = layout.group.all_gather(torch.cat([k_RHnD, v], dim=-1), 2, num_tokens)
        return SDPA(q, *keys.chunk(2, dim=-1), **kwargs)

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any], is_plain: bool) -> None:
        is_plain = is_plain and not args and kwargs.get("attn_mask") is None and not kwargs.get("is_causal")
        if not is_plain:
            raise ValueError(
                f"{self.site}: its attention is causal, has a mask for each query, or fewer heads for its "
                "keys; such attention cannot be exchanged between ranks, use ulysses=1"
            )


class _Intercepted(TorchFunctionMode):
    """While entered, every `scaled_dot_product_attention` is done by somebody else."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.num_calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not SDPA:
            return func(*args, **(kwargs or {}))
        self.num_calls += 1
        named = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
        return self.attend(named.pop("query"), named.pop("key"), named.pop("value"), *args[3:], **named)


def exchanging_processor(processor: Any, exchanged: Exchanged) -> Any:
    """A processor of the same class and signature, and with the same settings, that exchanges."""
    made = copy.copy(processor)
    made.exchanged = exchanged
    made.__class__ = _exchanging_class(type(processor))
    return made


@functools.cache  # compiled blocks of one kind share their graphs only if their processors share a class
def _exchanging_class(cls: type) -> type:
    call = cls.__call__

    @functools.wraps(call)  # diffusers reads the names of a processor's arguments
    def exchange(self: Any, module: nn.Module, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.exchanged(functools.partial(call, self), module, hidden, *args, **kwargs)

    return type(cls.__name__, (cls,), {"__call__": exchange})
