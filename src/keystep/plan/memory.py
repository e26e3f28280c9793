"""Count the bytes that are alive while something runs, without a device that would hold them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """Context manager that follows every tensor made inside it, by storage, until it is freed.

    What a kernel takes for itself while it runs is not seen.

    Args:
        given: tensors that were there before: weights, inputs. They and their views do not count.

    Attributes:
        num_bytes: alive now.
        peak_bytes: the most there were at once.
    """

    def __init__(self, given: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.num_bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, weakref.ref[Any] | None] = {
            tensor.untyped_storage()._cdata: None for tensor in given
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Run one operator and note what it made."""
        result = func(*args, **(kwargs or {}))
        self.see(result)
        return result

    def see(self, result: Any) -> None:
        """Follow the tensors in what an operator made; for one mode that serves several."""
        for value in (result,) if isinstance(result, torch.Tensor) else tree_leaves(result):
            if isinstance(value, torch.Tensor):
                self._follow(value.untyped_storage())

    def _follow(self, storage: torch.UntypedStorage) -> None:
        address, num_bytes = storage._cdata, storage.nbytes()
        if address in self._alive:
            return

        def forget(_: Any) -> None:
            del self._alive[address]
            self.num_bytes -= num_bytes

        self._alive[address] = weakref.ref(storage, forget)
        self.num_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.num_bytes)
