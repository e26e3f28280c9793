"""Which ranks work together: cut the world of torch.distributed into groups, after a check that all want the
same.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import diffusers
import torch
import torch.distributed as dist

import keystep
from keystep.errors import require
from keystep.ranks.failures import open_failures
from keystep.ranks.group import Group


def world() -> Group:
    """All ranks that were launched; for checks before work begins only.

    Raises:
        ValueError: there is no launcher.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            "parallel: torch.distributed is not initialised; start the script with `torchrun "
            "--nproc-per-node 2 script.py` and let it call torch.distributed.init_process_group() first"
        )
    size = dist.get_world_size()
    assert dist.group.WORLD is not None, "initialised"
    return Group(dist.group.WORLD, tuple(range(size)), dist.get_rank())


def choose_degrees(ulysses: int | None, cfg: int, size: int) -> tuple[int, int]:
    """Ranks that share a sequence, and groups that share the guidance branches, checked.

    Args:
        ulysses: ranks that share a sequence; None = all there are.
        cfg: groups that share the guidance branches.
        size: of the world.

    Raises:
        ValueError: they do not divide the world.
    """
    require(cfg == 1, "cfg", cfg, "1")
    require(size % cfg == 0, "cfg", cfg, f"divisors of the {size} ranks that were launched")
    share = size // cfg
    chosen = share if ulysses is None else ulysses
    allowed = [degree for degree in range(1, share + 1) if share % degree == 0]
    require(
        chosen in allowed, "ulysses", chosen, f"{', '.join(map(str, allowed))} of {size} ranks, cfg={cfg}"
    )
    return chosen, cfg


def check_alike(everyone: Group, facts: Mapping[str, Any]) -> None:
    """Raise on every rank unless all ranks have the same versions and want the same.

    Args:
        everyone: the ranks.
        facts: further things that must be equal, by name.

    Raises:
        ValueError: names what differs, and between which ranks.
    """
    own = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "keystep": keystep.__version__,
        **facts,
    }
    every = everyone.gather_objects(own)
    for name in own:
        for rank, other in zip(everyone.ranks, every, strict=True):
            if other.get(name) != every[0].get(name):
                raise ValueError(
                    f"{name}: ranks differ: {every[0].get(name)!r} on rank {everyone.ranks[0]}, "
                    f"{other.get(name)!r} on rank {rank}; all ranks must run the same"
                )


def split_world(everyone: Group, size: int) -> Group:
    """The group of `size` consecutive ranks that this one belongs to. All ranks must call it together."""
    starts = range(0, everyone.size, size)
    groups: list[Any] = [dist.new_group(list(range(start, start + size))) for start in starts]
    place, rank = divmod(everyone.rank, size)
    ranks = tuple(range(starts[place], starts[place] + size))
    return Group(groups[place], ranks, rank, open_failures(ranks, everyone.rank))
