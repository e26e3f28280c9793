"""What went wrong on another rank: the one that fails says so, for the others only see that it is gone."""

from __future__ import annotations

import itertools

from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

_numbers = itertools.count()  # all ranks share pipelines in the same order
_FIRST = "first"


class RankError(RuntimeError):
    """Another rank failed, so this one cannot go on."""


class Failures:
    """Where the ranks of a video leave word of the first failure.

    Args:
        store: all of them can reach it.
        rank: this one, in the world.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store, self._rank = store, rank

    def report(self, error: BaseException) -> None:
        """Leave word of a failure here, unless there was one before."""
        text = " ".join(str(error).split())
        self._store.compare_set(_FIRST, "", f"rank {self._rank}: {type(error).__name__}: {text}")

    def first(self) -> str | None:
        """The first failure in words; None = nobody failed."""
        return self._store.get(_FIRST).decode() if self._store.check([_FIRST]) else None


def open_failures(ranks: tuple[int, ...], rank: int) -> Failures:
    """A place for the failures of a group. All ranks of the world must call it equally often."""
    shared = _get_default_store()  # the world's; torch shows it to nobody
    name = f"keystep/{next(_numbers)}/{ranks[0]}"
    return Failures(PrefixStore(name, shared), rank)
