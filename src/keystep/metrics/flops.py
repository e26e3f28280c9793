"""Count the floating-point operations of whatever runs inside a `with` block.

Matrix products, convolutions and attention are counted (a multiply-add is two operations), as torch's own
formulas count them. Element-wise work, norms and FFTs are not: they are a few parts in a thousand here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop

_aten = torch.ops.aten

# Torch has no formula for the attention that `scaled_dot_product_attention` picks on a CPU, so its own
# counter reports zero for it. Kept apart from torch's table, which belongs to the whole process.
_EXTRA_FORMULAS: dict[Any, Any] = {_aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop}


class FlopCounter(TorchDispatchMode):
    """Context manager that adds up the FLOPs of every operator called inside it.

    Results are bit-identical to running without it; it costs host time, so never time what it counts.

    Args:
        see: shown what every operator returns; each mode more would cost as much host time as this one.

    Attributes:
        total: operations so far.
        uncounted: attention operators that ran and have no formula; empty when `total` can be trusted.
    """

    def __init__(self, see: Callable[[Any], None] | None = None) -> None:
        super().__init__()
        self._see = see
        self._basic: set[Any] = set()  # operators found to consist of no others
        self.total = 0
        self.uncounted: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operator and count it."""
        kwargs = kwargs or {}
        formula = _find_formula(func)
        if formula is None and func not in self._basic:
            # Under inference mode composite operators (linear, attention) arrive whole.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
            self._basic.add(func)
        result = func(*args, **kwargs)
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=result))
        elif _looks_like_attention(func):
            self.uncounted.add(str(func._overloadpacket))
        if self._see is not None:
            self._see(result)
        return result


@cache
def _find_formula(func: Any) -> Any:
    packet = func._overloadpacket
    return flop_registry.get(packet) or _EXTRA_FORMULAS.get(packet)


@cache
def _looks_like_attention(func: Any) -> bool:
    name = str(func._overloadpacket)
    return "attention" in name or "flash_attn" in name
