"""Tensors that keystep keeps by reference while others' code runs: nobody may write into them.

Keeping them costs no copy, because blocks as a rule make new tensors. One that does not
(`hidden_states += ...`) would change what is compared or reused, so it is refused. Under
`torch.inference_mode()` tensors do not count what is written into them, and nothing is noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor was written into; inference tensors do not count it."""
    return 0 if tensor.is_inference() else tensor._version


class Untouched:
    """Tensors as they are now.

    Args:
        tensors: those to watch; others and None are passed over.
    """

    def __init__(self, tensors: Sequence[Any]) -> None:
        seen = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
        self._versions = [(tensor, version_of(tensor)) for tensor in seen]

    def check(self, name: str, role: str) -> None:
        """Raise if one of them was written into since.

        Args:
            name: the module whose tensor it is.
            role: what the tensor is to it: "its input", "its output".
        """
        if any(version_of(tensor) != version for tensor, version in self._versions):
            raise RuntimeError(
                f"{name}: {role} is written into in place (`x += y`, `x.mul_(y)`) by the block or a hook on "
                "it, but keystep still needs it; make a new tensor there: `x = x + y`"
            )
