"""The command line on several processes: the first one writes and prints, and one tells of a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from keystep.errors import require

LAUNCH = "torchrun --nproc-per-node 2 -m keystep generate ..."


class Untold(Exception):
    """An error that need not be told: another rank was first and tells its own."""


def num_ranks() -> int:
    """How many processes the launcher has started (torchrun and its like set these variables)."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def is_first() -> bool:
    """Whether this process is the one that writes and prints."""
    return num_ranks() == 1 or os.environ["RANK"] == "0"


def check_ranks(ulysses: int | None, is_cfg_parallel: bool) -> None:
    """Refuse what the processes that were launched cannot do.

    Raises:
        ValueError: there is one process only, or they do not divide.
    """
    size, cfg = num_ranks(), 1 + is_cfg_parallel
    if size == 1:
        for option, is_given in {
            "--ulysses": ulysses not in (None, 1),
            "--cfg-parallel": is_cfg_parallel,
        }.items():
            if is_given:
                raise ValueError(f"{option}: there is one process only; start several with `{LAUNCH}`")
        return
    from keystep.ranks.groups import choose_degrees

    share, cfg = choose_degrees(ulysses, cfg, size)
    require(share * cfg == size, "--ulysses", share, f"{size // cfg}: the other ranks would be idle")


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that were launched, if there are several; gives the device of this one.

    Raises:
        ValueError: a device by its number, where every process takes its own.
        Untold: in place of an error inside, if another rank failed first.
    """
    if num_ranks() == 1:
        yield device
        return
    import torch
    import torch.distributed as dist

    kind, _, number = device.partition(":")
    has_cuda = kind == "cuda" and torch.cuda.is_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cuda else "gloo")
    try:
        require(not number, "--device", device, f"{kind}: each process takes the device of its own number")
        if has_cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        yield f"cuda:{os.environ['LOCAL_RANK']}" if has_cuda else device
    except Exception as error:
        if not _is_first_failure():
            raise Untold from error
        raise
    finally:
        dist.destroy_process_group()


def _is_first_failure() -> bool:
    from torch.distributed.distributed_c10d import _get_default_store

    rank = os.environ["RANK"]
    return _get_default_store().compare_set("keystep/failed", "", rank).decode() == rank


def shared(pipe: Any, ulysses: int | None, is_cfg_parallel: bool) -> AbstractContextManager[Any]:
    """The pipeline shared by all processes, if there are several."""
    import keystep

    return nullcontext() if num_ranks() == 1 else keystep.parallel(pipe, ulysses, 1 + is_cfg_parallel)
