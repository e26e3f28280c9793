"""How a pipeline lays out classifier-free guidance, and how to cut tensors by branch.

Batched guidance runs all branches in one call, branch-major along dimension 0 (all rows of one branch, then
all rows of the next, also where a tensor's rows are `branch x sample x frame`). Separate guidance calls the
model once per branch and evaluation, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from keystep.errors import require

LEAD = "cond"  # the branch that decides; it is always computed


@dataclass(frozen=True)
class Guidance:
    """Layout of the guidance branches.

    Attributes:
        kind: `"batched"` (one call, rows branch-major) or `"separate"` (one call per branch).
        order: branch names in the order of the rows or calls.
    """

    kind: Literal["batched", "separate"]
    order: tuple[str, ...] = ("uncond", "cond")

    def __post_init__(self) -> None:
        require(self.kind in ("batched", "separate"), "Guidance.kind", self.kind, "'batched' or 'separate'")
        require(
            sorted(self.order) == ["cond", "uncond"],
            "Guidance.order",
            self.order,
            "('uncond', 'cond') or ('cond', 'uncond')",
        )

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(self.order)}"

    @classmethod
    def parse(cls, text: str | Guidance) -> Guidance:
        """From `"batched:uncond,cond"`, `"separate:cond,uncond"` and the like."""
        if isinstance(text, Guidance):
            return text
        kind, _, order = text.partition(":")
        if kind not in ("batched", "separate") or not order:
            raise ValueError(
                f"guidance: given {text!r}, allowed: 'batched:uncond,cond', 'batched:cond,uncond', "
                "'separate:cond,uncond' or 'separate:uncond,cond'"
            )
        return cls(kind, tuple(order.split(",")))  # type: ignore[arg-type]

    def calls(self, is_guided: bool) -> tuple[tuple[str, ...], ...]:
        """Branches of each model call of one evaluation, in call order."""
        if not is_guided:
            return ((LEAD,),)
        return (self.order,) if self.kind == "batched" else tuple((name,) for name in self.order)


def rows_of(tensor: torch.Tensor, branch: str, branches: Sequence[str]) -> torch.Tensor:
    """The rows (a view) of `branch` in a tensor whose dimension 0 holds `branches`, branch-major."""
    if len(branches) == 1:
        return tensor
    return tensor.chunk(len(branches))[list(branches).index(branch)]


def join_rows(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The way back from `rows_of`: no copy is made of parts that lie one behind the other anyway."""
    joined = join_views(parts)
    return torch.cat(list(parts)) if joined is None else joined


def join_views(parts: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The tensor that these parts are views of, one behind the other; None if they are not."""
    first = parts[0]
    if len(parts) == 1:
        return first
    end = first.storage_offset()
    for part in parts:
        is_next = (
            part.is_contiguous()
            and part.dtype == first.dtype
            and part.untyped_storage()._cdata == first.untyped_storage()._cdata
            and part.storage_offset() == end
        )
        if not is_next:
            return None
        end += part.numel()
    num_rows = sum(len(part) for part in parts)
    return first.as_strided((num_rows, *first.shape[1:]), first.stride(), first.storage_offset())


def check_rows(name: str, num_rows: int, branches: Sequence[str]) -> None:
    """Raise `ValueError` if the rows of an argument do not divide by the number of branches."""
    if num_rows % len(branches):
        raise ValueError(
            f"{name}: {num_rows} rows do not divide into the branches {', '.join(branches)}; is the "
            "guidance layout right? Pass guidance='separate:cond,uncond' if the pipeline calls the model "
            "once per branch"
        )


def select_branches(
    arguments: dict[str, Any], names: Sequence[str], branches: Sequence[str], wanted: Sequence[str]
) -> dict[str, Any]:
    """Cut the batch-carrying arguments of a batched call down to the `wanted` branches.

    Args:
        arguments: the call's arguments by name; tensors, lists of tensors, or None.
        names: the arguments whose dimension 0 carries `branches`; the first one is the latent.
        branches: branches in the order of the rows.
        wanted: the branches to keep, in the same order.

    Returns:
        The named arguments. Tensors with no more rows than the latent has for each branch are shared by the
        branches (one row: by all samples too) and stay as they are.

    Raises:
        ValueError: if the rows of an argument do not divide by the number of branches.
    """
    latent = arguments[names[0]]
    first = latent[0] if isinstance(latent, (list, tuple)) else latent
    num_shared = max(1, first.shape[0] // len(branches))

    def cut(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(cut(name, each) for each in value)
        if not isinstance(value, torch.Tensor) or value.ndim == 0 or value.shape[0] <= num_shared:
            return value
        return _cut(name, value, branches, wanted)

    return {name: cut(name, arguments[name]) for name in names if arguments.get(name) is not None}


def _cut(name: str, value: torch.Tensor, branches: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    check_rows(name, value.shape[0], branches)
    return join_rows([rows_of(value, branch, branches) for branch in branches if branch in wanted])
