"""Dealing out: who gets how many of something, and cutting tensors accordingly.

Counts need not divide: the first ranks get one more. Video tokens are dealt out within every frame, so that
each rank has the same places of all frames: motion between frames is measured without a neighbour, and
attention along time needs nobody else.
"""

from __future__ import annotations

import torch

from keystep.errors import require


def shares(total: int, ranks: int) -> list[int]:
    """How many of `total` each rank gets: as even as can be, the first ones one more."""
    least, num_larger = divmod(total, ranks)
    return [least + (rank < num_larger) for rank in range(ranks)]


def cut(tensor: torch.Tensor, dim: int, sizes: list[int], rank: int) -> torch.Tensor:
    """A rank's part of a tensor.

    Args:
        tensor: any shape; along `dim` it has a multiple of `sum(sizes)` items, e.g. `frames * patches`.
        dim: counted from the front.
        sizes: how many of each run of `sum(sizes)` items each rank gets.
        rank: whose part.
    """
    period = sum(sizes)
    check_period(tensor, dim, period)
    runs = tensor.unflatten(dim, (-1, period))
    return runs.narrow(dim + 1, sum(sizes[:rank]), sizes[rank]).flatten(dim, dim + 1)


def check_period(tensor: torch.Tensor, dim: int, period: int) -> None:
    """Raise unless a tensor has a multiple of `period` items along `dim`."""
    require(
        tensor.shape[dim] % period == 0,
        "tokens",
        tensor.shape[dim],
        f"a multiple of {period}, the tokens of a frame, for only those can be dealt out to the ranks",
    )
