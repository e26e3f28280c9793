"""A group of processes that work on one video, and what they send each other, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from keystep.ranks.failures import Failures, RankError


@dataclass
class Traffic:
    """What a rank has sent so far.

    Attributes:
        collectives: how many, by name.
        num_bytes: sent by this rank to the others, as if every pair of ranks talked directly.
    """

    collectives: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0

    @property
    def num_collectives(self) -> int:
        """How many collectives of any kind."""
        return self.collectives.total()

    def count(self, name: str, num_bytes: int) -> None:
        """One more collective."""
        self.collectives[name] += 1
        self.num_bytes += num_bytes

    def reset(self) -> None:
        """Begin to count anew."""
        self.collectives.clear()
        self.num_bytes = 0


@dataclass(eq=False)
class Group:
    """Ranks that talk to each other, and to nobody else.

    Attributes:
        process_group: of torch.distributed; every collective goes through it, never through the world. None
            after `close`.
        ranks: numbers of its members in the world, in the order of the group.
        rank: place of this process in `ranks`.
        failures: where its members leave word of a failure; None = nowhere.
        traffic: what this process has sent in the group.
    """

    process_group: dist.ProcessGroup | None
    ranks: tuple[int, ...]
    rank: int
    failures: Failures | None = None
    traffic: Traffic = field(default_factory=Traffic)

    @property
    def size(self) -> int:
        """How many ranks."""
        return len(self.ranks)

    @property
    def is_closed(self) -> bool:
        """Whether this rank has left it."""
        return self.process_group is None

    def close(self) -> None:
        """Leave the group. Connections end with the last reference: whoever waits for this rank is told."""
        dist.destroy_process_group(self.process_group)
        self.process_group = None

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, the same bits on each of them; `tensor` itself stays as it is."""
        total = tensor.to(self._device(tensor), copy=True)
        with self._sending("all_reduce", tensor.nbytes * (self.size - 1)):
            dist.all_reduce(total, group=self.process_group)
        return total.to(tensor.device)

    def broadcast(self, tensor: torch.Tensor, source: int = 0) -> torch.Tensor:
        """The tensor of rank `source` of the group; shape and type must be equal everywhere."""
        value = tensor.to(self._device(tensor), memory_format=torch.contiguous_format, copy=True)
        with self._sending("broadcast", tensor.nbytes * (self.size - 1) if self.rank == source else 0):
            dist.broadcast(value, self.ranks[source], group=self.process_group)
        return value.to(tensor.device)

    def all_gather(self, tensor: torch.Tensor, dim: int, sizes: Sequence[int]) -> torch.Tensor:
        """The parts of all ranks one after the other along `dim`; `sizes` are their lengths there."""
        own = tensor.movedim(dim, 0).contiguous()
        # the collective wants equal parts; the shorter ones are padded by an item that is cut off again
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with self._sending("all_gather", own.nbytes * (self.size - 1)):
            dist.all_gather(parts, padded, group=self.process_group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).movedim(0, dim)

    def all_to_all(self, flat: torch.Tensor, sent: Sequence[int], received: Sequence[int]) -> torch.Tensor:
        """To each rank its part of a flat tensor.

        Args:
            flat: one-dimensional, the parts for ranks 0, 1, ... one after the other.
            sent: their numbers of elements.
            received: numbers of elements that come from ranks 0, 1, ...

        Returns:
            What was received, one after the other.
        """
        assert flat.is_contiguous(), "the parts are taken as they lie in memory"
        result = flat.new_empty(sum(received))
        with self._sending("all_to_all", (flat.numel() - sent[self.rank]) * flat.element_size()):
            dist.all_to_all_single(result, flat, list(received), list(sent), group=self.process_group)
        return result

    def gather_objects(self, value: Any) -> list[Any]:
        """A small Python object of every rank, in their order. For checks, not for tensors."""
        values: list[Any] = [None] * self.size
        with self._sending("gather_objects", 0):
            dist.all_gather_object(values, value, group=self.process_group)
        return values

    @contextmanager
    def _sending(self, name: str, num_bytes: int) -> Iterator[None]:
        """Count a collective; if it fails because another rank did, say what happened there."""
        self.traffic.count(name, num_bytes)
        try:
            yield
        except RuntimeError as error:
            first = None if self.failures is None else self.failures.first()
            if first is None:
                raise
            raise RankError(f"another rank failed, {first}") from error

    def _device(self, tensor: torch.Tensor) -> torch.device:
        """Where the group can work on a tensor: host numbers go to the device if there is NCCL only."""
        return torch.device("cuda") if dist.get_backend(self.process_group) == "nccl" else tensor.device
