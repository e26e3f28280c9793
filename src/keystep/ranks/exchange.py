"""The one exchange behind attention on several ranks: from all units of some tokens to some units of all
tokens, and back.

A unit is what attention treats by itself: a row (a frame, where attention is spatial), or a head of a row.
Counts of units and of tokens need not divide by the ranks. With heads as units this is DeepSpeed-Ulysses
(arXiv 2309.14509), with frames as units it is Dynamic Sequence Parallelism (arXiv 2403.10266).

Shape suffixes: U units of all ranks, u units of this rank, N tokens of all ranks, n tokens of this rank, F
features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from keystep.ranks.group import Group
from keystep.ranks.shares import shares


def to_units(group: Group, x_UnF: torch.Tensor, num_tokens: Sequence[int]) -> torch.Tensor:
    """This rank's units with all tokens, (u, N, F).

    Args:
        group: who takes part.
        x_UnF: all units with this rank's tokens.
        num_tokens: n of every rank.
    """
    num_units, _, num_features = x_UnF.shape
    units = shares(num_units, group.size)
    sent = [count * x_UnF[0].numel() for count in units]
    received = [units[group.rank] * n * num_features for n in num_tokens]
    flat = group.all_to_all(x_UnF.flatten(), sent, received)
    parts = zip(flat.split(received), num_tokens, strict=True)
    return torch.cat([part.view(units[group.rank], n, num_features) for part, n in parts], dim=1)


def to_tokens(group: Group, x_uNF: torch.Tensor, num_units: int, num_tokens: Sequence[int]) -> torch.Tensor:
    """All units with this rank's tokens, (U, n, F): the way back from `to_units`.

    Args:
        group: who takes part.
        x_uNF: this rank's units with all tokens.
        num_units: U.
        num_tokens: n of every rank.
    """
    num_features, own = x_uNF.shape[2], num_tokens[group.rank]
    parts = [part.flatten() for part in x_uNF.split(list(num_tokens), dim=1)]
    received = [count * own * num_features for count in shares(num_units, group.size)]
    flat = group.all_to_all(torch.cat(parts), [part.numel() for part in parts], received)
    return flat.view(num_units, own, num_features)
