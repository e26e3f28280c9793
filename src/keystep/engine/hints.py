"""Hints that a second stack of blocks makes for the first one: computed where they are added, not before.

VACE's blocks run before all others, each on what the one before left, and their outputs are added to the
hidden state behind some of the others. A span that is skipped is only decided on later, so a block's seat
hands out promises: adding one computes it and those it stands on, and inside a skipped span adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from keystep.engine.seats import Host


class Promise:
    """One of the tensors that a hint block will return, or a multiple of it.

    Attributes:
        outputs: computes all of them, once.
        index: which of them.
        scale: what it is multiplied with; None = nothing.
        is_skipping: whether the stack is inside a skipped span.
    """

    def __init__(
        self,
        outputs: Callable[[], tuple[torch.Tensor, ...]],
        index: int,
        is_skipping: Callable[[], bool],
        scale: Any = None,
    ) -> None:
        self.outputs = outputs
        self.index = index
        self.is_skipping = is_skipping
        self.scale = scale

    def keep(self) -> torch.Tensor:
        """The tensor."""
        value = self.outputs()[self.index]
        return value if self.scale is None else value * self.scale

    def to(self, device: Any) -> Promise:
        """A block lies where its stack lies: nothing has to move."""
        del device
        return self

    def __mul__(self, scale: Any) -> Promise:
        return Promise(self.outputs, self.index, self.is_skipping, scale)

    def __radd__(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden if self.is_skipping() else hidden + self.keep().to(hidden.device)


class HintSeat:
    """In front of a hint block: promises its outputs.

    Attributes:
        num_outputs: tensors that the block returns.
    """

    num_outputs = 2

    def __init__(self, session: Host, module: nn.Module) -> None:
        self.session = session
        self.call_next: Callable[..., Any] = module._call_impl

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Promise, or outside of an accelerated call compute."""
        if self.session.call is None:
            return self.call_next(*args, **kwargs)
        made: list[tuple[torch.Tensor, ...]] = []

        def outputs() -> tuple[torch.Tensor, ...]:
            if not made:
                given = [keep(value) for value in args]
                made.append(self.call_next(*given, **{name: keep(value) for name, value in kwargs.items()}))
            return made[0]

        return tuple(Promise(outputs, index, self._is_skipping) for index in range(self.num_outputs))

    def _is_skipping(self) -> bool:
        return self.session.call is not None and self.session.call.is_skipping


def keep(value: Any) -> Any:
    """A promise kept; anything else as it is."""
    return value.keep() if isinstance(value, Promise) else value
