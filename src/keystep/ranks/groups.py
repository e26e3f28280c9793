"""Which ranks work together: cut the world of torch.distributed into groups, after a check that all want the
same.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        cfg: 1, or 2 for a group for each guidance branch.
        size: of the world.

    Raises:
        ValueError: they do not divide the world.
    """
    require(cfg in (1, 2), "cfg", cfg, "1, or 2 for a group for each guidance branch")
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


@dataclass(frozen=True)
class Groups:
    """The groups that a rank belongs to; they count what is sent together, and tell of failures together.

    Attributes:
        video: all ranks that make a video together.
        sequence: those of them that share the tokens of a branch.
        guidance: the two that have the same tokens of different branches; None = every rank has both.
    """

    video: Group
    sequence: Group
    guidance: Group | None

    def close(self) -> None:
        """Leave all of them."""
        for group in dict.fromkeys((self.video, self.sequence, self.guidance)):
            if group is not None:
                group.close()


def split_world(everyone: Group, ulysses: int, cfg: int) -> Groups:
    """The groups that this rank belongs to: consecutive ranks make a video, and of these consecutive ones a
    branch. All ranks must call it together.

    Args:
        everyone: the ranks.
        ulysses: ranks that share the tokens of a branch.
        cfg: 1, or 2 for a group for each guidance branch.
    """
    degree = ulysses * cfg
    videos = [range(start, start + degree) for start in range(0, everyone.size, degree)]
    video = _join(everyone, videos, None)
    if cfg == 1:
        return Groups(video, video, None)
    sequences = [range(start, start + ulysses) for start in range(0, everyone.size, ulysses)]
    pairs = [ranks[place::ulysses] for ranks in videos for place in range(ulysses)]
    return Groups(video, _join(everyone, sequences, video), _join(everyone, pairs, video))


def _join(everyone: Group, members: Sequence[Sequence[int]], whole: Group | None) -> Group:
    """The one of several groups that this rank belongs to; all ranks make all of them."""
    made: list[Any] = [dist.new_group(list(ranks)) for ranks in members]
    own = next(number for number, ranks in enumerate(members) if everyone.rank in ranks)
    ranks = tuple(members[own])
    place = ranks.index(everyone.rank)
    if whole is None:
        return Group(made[own], ranks, place, open_failures(ranks, everyone.rank))
    return Group(made[own], ranks, place, whole.failures, whole.traffic)
