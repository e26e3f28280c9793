"""One noise for all ranks: whatever a rank draws, the first rank's latents count."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from keystep.ranks.group import Group


class SharedStep:
    """In front of a scheduler's `step`: its result is the first rank's, noise and all.

    A deep copy of the scheduler has a `step` of its own that is shared like the original's.

    Args:
        method: the scheduler's own.
        group: the ranks that make the video.
        before: called when a step is taken.
    """

    def __init__(self, method: Callable[..., Any], group: Group, before: Callable[[], None]) -> None:
        functools.update_wrapper(self, method)
        self.method, self.group, self.before = method, group, before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take the step, and hand out what it gave the first rank."""
        self.before()
        result = self.method(*args, **kwargs)
        if isinstance(result, tuple):
            return tuple(self._share(value) for value in result)
        return type(result)(**{name: self._share(value) for name, value in result.items()})

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedStep:
        return type(self)(copy.deepcopy(self.method, memo), self.group, self.before)

    def _share(self, value: Any) -> Any:
        is_shared = isinstance(value, torch.Tensor) and not self.group.is_closed
        return self.group.broadcast(value) if is_shared else value
