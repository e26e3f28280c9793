"""The form of a model's output: what it returned, without its content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


@dataclass(frozen=True)
class Form:
    """What a model returned: its tensors' shapes, dtypes and devices, and everything else."""

    leaves: tuple[Any, ...]
    tree: TreeSpec

    @classmethod
    def of(cls, output: Any) -> Form:
        """The form of an output: shapes, dtypes and devices of its tensors, and everything else."""
        leaves, tree = tree_flatten(output)
        return cls(
            tuple(_Blank.of(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves), tree
        )

    def fill(self) -> Any:
        """An output of this form, of zeros."""
        leaves = [leaf.fill() if isinstance(leaf, _Blank) else leaf for leaf in self.leaves]
        return tree_unflatten(leaves, self.tree)


@dataclass(frozen=True)
class _Blank:
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _Blank:
        return cls(tensor.shape, tensor.dtype, tensor.device)

    def fill(self) -> torch.Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)
