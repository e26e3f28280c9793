"""Taps: what takes the place of a `forward` inside a block, plain enough to be compiled together with the
block.

A tap's forward is a bound method of the tap, and looks at its flags and one tensor: so all blocks of a kind
share their compiled graphs, one for computing and one for skipping. Decisions are made before, outside.

Whoever wraps a tapped forward (an offload hook) may keep calling it after keystep has left: then the tap only
passes through to what lay below. The forward is bound to its tap, not to the module, so that a tap put on top
of such a wrapper later is another one.
"""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from keystep.engine.restore import replace_attribute
from keystep.engine.untouched import Untouched


def has_hooks(module: nn.Module) -> bool:
    """Whether others look at what the module returns."""
    return bool(module._forward_hooks)


class Peeked(Exception):
    """Raised to leave a block as soon as its attention is reached; carries what the attention is given."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


class Tap:
    """What a tapped module and the engine tell each other.

    Attributes:
        module: the one that is tapped; `name` is its path in the model.
        forward: what lay below, the module's own forward or a hook around it.
        is_open: whether keystep is there; a closed tap only passes through, as a copied one does.
        should_skip: set by the engine: hand out `value` instead of computing.
        value: the prediction to hand out, or what was seen.
        is_hooked: whether hooks of others see the output, and may write into it: they are given a copy.
        norm: on the norm that only this module reads, if there is one.
    """

    def __init__(self, module: nn.Module, name: str, forward: Callable[..., Any]) -> None:
        self.module = module
        self.name = name
        self.forward = forward
        self.is_open = False
        self.should_skip = False
        self.value: Any = None
        self.is_hooked = False
        self.norm: Tap | None = None
        self._given = Untouched(())

    def __deepcopy__(self, memo: dict[int, Any]) -> Tap:
        module, forward = copy.deepcopy((self.module, self.forward), memo)
        return Tap(module, self.name, forward)

    def skip(self, value: Any) -> None:
        """Hand out a value instead of computing; what would be computed for this module alone is not, unless
        a hook looks at it.
        """
        self.should_skip, self.value = True, value
        self._given = Untouched(value if isinstance(value, tuple) else (value,))
        if self.norm is not None:
            self.norm.should_skip = not has_hooks(self.norm.module)

    def reset(self) -> None:
        """Compute again, hold nothing."""
        self.should_skip, self.value = False, None
        self.is_hooked, self._given = has_hooks(self.module), Untouched(())
        if self.norm is not None:
            self.norm.should_skip = False

    def close(self) -> None:
        """Keystep leaves."""
        self.is_open = False
        self.reset()

    def take(self) -> Any:
        """What was seen, no longer held here; None if the module did not run."""
        if self.value is None:
            self.check_in_place()
        self._given.check(self.name, "its output")
        value, self.value = self.value, None
        return value

    def check_in_place(self) -> None:
        """Asked when nothing was seen: raise if the module's forward no longer is this tap's."""
        if getattr(self.module.forward, "__self__", None) is not self:
            raise RuntimeError(
                f"{self.name}: its hooks were removed, or its forward replaced, after keystep was enabled, "
                "and keystep with it; call keystep.accelerate() or keystep.enable() again afterwards"
            )

    # ---------------------------------------------------------------- what takes the place of a forward

    def show_output(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output, predicted or computed; a computed one is shown to the engine."""
        if not self.is_open:
            return self.forward(*args, **kwargs)
        if not self.should_skip:
            self.value = self.forward(*args, **kwargs)
        return tree_map(torch.clone, self.value) if self.is_hooked else self.value

    def show_input(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module's output; its first argument is shown to the engine."""
        if self.is_open:
            self.value = hidden
        return self.forward(hidden, *args, **kwargs)

    def pass_input(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The module's output; its first argument while nobody reads that output."""
        return hidden if self.should_skip else self.forward(hidden, *args, **kwargs)

    def peek_input(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output; while the engine only peeks, its first argument and nothing computed."""
        if self.should_skip:
            raise Peeked(args[0] if args else next(iter(kwargs.values())))
        return self.forward(*args, **kwargs)


def put_tap(stack: ExitStack, model: nn.Module, name: str, forward: Callable[..., Any]) -> Tap:
    """Tap a module of a model with one of the forwards above until the stack closes."""
    module = model.get_submodule(name)
    tap = Tap(module, name, module.forward)
    tap.is_open = True
    stack.callback(tap.close)
    replace_attribute(stack, module, "forward", types.MethodType(forward, tap))
    return tap
