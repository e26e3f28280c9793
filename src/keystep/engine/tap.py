"""Taps: what takes the place of a `forward` inside a block, plain enough to be compiled together with the
block.

A tap's forward is a bound method of one shared function, and looks at one flag and one tensor of the tap: so
all blocks of a kind share their compiled graphs, one for computing and one for skipping. Decisions are made
before, outside. Whoever wraps a tapped forward (an offload hook) may keep calling it after keystep has left:
then it has no tap.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from keystep.engine.restore import replace_attribute

# One module may have one of each: what follows the attention may be something that is skipped itself.
OUTPUT_TAP = "keystep_output_tap"
INPUT_TAP = "keystep_input_tap"
PEEK_TAP = "keystep_peek_tap"


class Tap:
    """What a tapped module and the engine tell each other.

    Attributes:
        forward: the module's own forward.
        should_skip: set by the engine: hand out `value` instead of computing.
        value: the prediction to hand out, or what was seen.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self.forward = forward
        self.should_skip = False
        self.value: Any = None

    def reset(self) -> None:
        """Compute again, hold nothing."""
        self.should_skip, self.value = False, None

    def take(self) -> Any:
        """What was seen, no longer held here."""
        value, self.value = self.value, None
        return value


def show_output(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The module's output, predicted or computed; a computed one is shown to the engine."""
    tap: Tap | None = getattr(self, OUTPUT_TAP, None)
    if tap is None:
        return type(self).forward(self, *args, **kwargs)
    if tap.should_skip:
        return tap.value
    tap.value = tap.forward(*args, **kwargs)
    return tap.value


def show_input(self: nn.Module, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """The module's output; its first argument is shown to the engine."""
    tap: Tap | None = getattr(self, INPUT_TAP, None)
    if tap is None:
        return type(self).forward(self, hidden, *args, **kwargs)
    tap.value = hidden
    return tap.forward(hidden, *args, **kwargs)


class Peeked(Exception):
    """Raised to leave a block as soon as its attention is reached; carries what the attention is given."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


def peek_input(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The module's output; while the engine only peeks, its first argument and nothing computed."""
    tap: Tap | None = getattr(self, PEEK_TAP, None)
    if tap is None:
        return type(self).forward(self, *args, **kwargs)
    if tap.should_skip:
        raise Peeked(args[0] if args else next(iter(kwargs.values())))
    return tap.forward(*args, **kwargs)


ATTRIBUTES = {show_output: OUTPUT_TAP, show_input: INPUT_TAP, peek_input: PEEK_TAP}


def put_tap(stack: ExitStack, module: nn.Module, forward: Callable[..., Any]) -> Tap:
    """Tap a module with one of the functions above until the stack closes."""
    tap = Tap(module.forward)
    replace_attribute(stack, module, ATTRIBUTES[forward], tap)
    replace_attribute(stack, module, "forward", types.MethodType(forward, module))
    return tap
