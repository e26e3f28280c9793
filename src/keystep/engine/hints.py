"""Hints that blocks beside the stack make for it: computed where they are added, not before.

VACE's blocks run before all others, each on what the one before left, and their outputs are added to the
hidden state behind some of the others; Wan-Animate's run between them. Whether a span is skipped is only
decided later, so a block's seat hands out promises: adding one computes it and those it stands on, and inside
a skipped span adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from keystep.engine.seats import Host


class Outputs:
    """What a hint block will return, computed when the first of it is taken.

    Args:
        compute: runs the block.
        num_outputs: tensors that it returns.
    """

    def __init__(self, compute: Callable[[], Any], num_outputs: int) -> None:
        self._compute: Callable[[], Any] | None = compute
        self._num_outputs = num_outputs
        self._values: dict[int, torch.Tensor] = {}

    def take(self, index: int) -> torch.Tensor:
        """One of them, once: nothing is held that nobody will ask for again, the block's inputs included."""
        if self._compute is not None:
            compute, self._compute = self._compute, None
            values = compute()
            self._values = dict(enumerate(values if self._num_outputs > 1 else (values,)))
        return self._values.pop(index)


class Promise:
    """A tensor that a hint block will return, or what is made of it; to be used once.

    Attributes:
        keep: gives it.
        is_skipping: whether the stack is inside a skipped span.
    """

    def __init__(self, keep: Callable[[], torch.Tensor], is_skipping: Callable[[], bool]) -> None:
        self.keep = keep
        self.is_skipping = is_skipping

    def to(self, *args: Any, **kwargs: Any) -> Promise:
        """The same elsewhere."""
        return Promise(lambda: self.keep().to(*args, **kwargs), self.is_skipping)

    def __mul__(self, scale: Any) -> Promise:
        return Promise(lambda: self.keep() * scale, self.is_skipping)

    def __add__(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden if self.is_skipping() else self.keep() + hidden

    def __radd__(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden if self.is_skipping() else hidden + self.keep()


class HintSeat:
    """In front of a hint block: promises its outputs.

    Args:
        session: of the model.
        module: the block.
        num_outputs: tensors that it returns.
    """

    def __init__(self, session: Host, module: nn.Module, num_outputs: int) -> None:
        self.session = session
        self.num_outputs = num_outputs
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Promise, or outside of an accelerated call compute."""
        call = self.session.call
        if call is None:
            return self.call_next(*args, **kwargs)

        def compute() -> Any:
            given = {name: _kept(value) for name, value in kwargs.items()}
            return self.call_next(*map(_kept, args), **given)

        outputs, is_skipping = Outputs(compute, self.num_outputs), partial(getattr, call, "is_skipping")
        promises = tuple(
            Promise(partial(outputs.take, index), is_skipping) for index in range(self.num_outputs)
        )
        return promises if self.num_outputs > 1 else promises[0]


def _kept(value: Any) -> Any:
    """A promise kept; anything else as it is."""
    return value.keep() if isinstance(value, Promise) else value
