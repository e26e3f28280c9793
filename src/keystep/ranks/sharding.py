"""A transformer whose tokens lie on several ranks: hooks cut them, gather them, and attention exchanges them.

All of it lies inside of where keystep's rules sit, so what they cache has the layout in which it is used, and
what they skip is not sent. Nothing is replaced that a rule would replace: either may come first.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from torch import nn

from keystep.engine.restore import replace_attribute
from keystep.models.spec import ModelSpec
from keystep.ranks.attention import Exchanged, exchanging_processor
from keystep.ranks.group import Group
from keystep.ranks.layout import Layout, count_places
from keystep.ranks.plans import Cut, ShardPlan


class Sharding:
    """The tokens of one transformer on the ranks of one group.

    Args:
        group: the ranks.
        spec: of the transformer.
        plan: where its tokens are cut.
        module: the transformer.
    """

    def __init__(self, group: Group, spec: ModelSpec, plan: ShardPlan, module: nn.Module) -> None:
        self.group, self.spec, self.plan, self.module = group, spec, plan, module
        self._layouts: dict[tuple[int, int | None], Layout] = {}
        self._layout: Layout | None = None  # of the call under way
        self._whole: dict[str, Any] = {}  # arguments of the call under way, before they were cut
        self._signature = inspect.signature(module.forward)

    @property
    def layout(self) -> Layout:
        """How the tokens of the call under way lie."""
        assert self._layout is not None, "hooks run inside a call of the transformer"
        return self._layout

    def attach(self, stack: ExitStack) -> None:
        """Put hooks and processors in place until the stack closes."""
        part = self.module.get_submodule
        self._before(stack, self.module, self._open)
        self._after(stack, self.module, self._close, always_call=True)
        for name, places in self.plan.whole.items():
            self._before(stack, part(name), functools.partial(self._give_whole, places))
        for name, how in self.plan.outputs.items():
            self._after(stack, part(name), functools.partial(self._cut_output, how))
        for pattern, arguments in self.plan.arguments.items():
            for block in self._matching(pattern):
                names = list(inspect.signature(block.forward).parameters)
                self._before(stack, block, functools.partial(self._cut_arguments, names, arguments))
        for pattern, how in self.plan.attention.items():
            for module in self._matching(pattern):
                self._exchange(stack, module, Exchanged(pattern, how, lambda: self.layout))
        self._after(stack, part(self.plan.gather), lambda module, args, output: self.layout.gather(output))

    def _matching(self, pattern: str) -> list[nn.Module]:
        """The modules of all blocks that a pattern stands for."""
        blocks, _, rest = pattern.partition(".{}")
        indices = range(len(list(self.module.get_submodule(blocks).children())))
        return [self.module.get_submodule(f"{blocks}.{index}{rest}") for index in indices]

    @staticmethod
    def _before(stack: ExitStack, module: nn.Module, hook: Any) -> None:
        stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    @staticmethod
    def _after(stack: ExitStack, module: nn.Module, hook: Any, always_call: bool = False) -> None:
        stack.callback(module.register_forward_hook(hook, always_call=always_call).remove)

    @staticmethod
    def _exchange(stack: ExitStack, module: nn.Module, exchanged: Exchanged) -> None:
        if "processor" in vars(module):
            made = exchanging_processor(vars(module)["processor"], exchanged)
            replace_attribute(stack, module, "processor", made)
        else:  # an attention without projections, which no rule replaces
            forward = type(module).forward
            replace_attribute(stack, module, "forward", functools.partial(exchanged, forward, module))

    # ---------------------------------------------------------------- hooks

    def _open(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call begins: the latents of the first rank count; cut what the plan says of the arguments."""
        bound = self._signature.bind(*args, **kwargs)
        arguments, latent = bound.arguments, self.spec.rows[0]
        arguments[latent] = self.group.broadcast(arguments[latent])
        self._layout = self._find_layout(module, arguments)
        self._whole = dict(arguments)
        for name, how in self.plan.inputs.items():
            arguments[name] = self._layout.cut(arguments.get(name), how)
        return bound.args, bound.kwargs

    def _find_layout(self, module: nn.Module, arguments: dict[str, Any]) -> Layout:
        cuts = (*self.plan.inputs.values(), *self.plan.outputs.values())
        is_text_cut = any(how.of == "text" for how in cuts)
        num_words = arguments[self.spec.condition].shape[1] if is_text_cut else None
        key = (count_places(self.spec, module, arguments), num_words)
        if key not in self._layouts:
            self._layouts[key] = Layout(self.group, *key)
        return self._layouts[key]

    def _close(self, module: nn.Module, args: Any, output: Any) -> None:
        """A call ends, or breaks off."""
        if self._layout is not None:
            self._layout.close_call()
        self._layout, self._whole = None, {}

    def _give_whole(
        self, places: Mapping[int, str], module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        given = list(args)
        for place, name in places.items():
            given[place] = self._whole[name]
        return tuple(given), kwargs

    def _cut_output(self, how: Cut, module: nn.Module, args: Any, output: Any) -> Any:
        return self.layout.cut(output, how)

    def _cut_arguments(
        self,
        names: list[str],
        arguments: Mapping[str, Cut],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Cut arguments of a block, however they are passed."""
        given = list(args)
        for place, name in enumerate(names[: len(args)]):
            if name in arguments:
                given[place] = self.layout.cut(args[place], arguments[name])
        for name in arguments.keys() & kwargs.keys():
            kwargs[name] = self.layout.cut(kwargs[name], arguments[name])
        return tuple(given), kwargs
