"""CFG parallelism: each guidance branch is made by ranks of its own.

Batched pipelines: of one call's rows each rank takes those of its branch, and all of them give the output
together. Separate calls: that of the other branch returns at once, and both outputs change hands at the
second call. The pipeline gets the outputs that one process gives it; what is measured and cached is of one
branch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

from keystep.engine.clock import is_guided
from keystep.engine.outputs import samples_of, with_samples
from keystep.engine.restore import replace_attribute
from keystep.errors import require
from keystep.models.spec import ModelSpec
from keystep.ranks.group import Group
from keystep.what import LEAD, Guidance
from keystep.what.branch import select_branches

_MAY_BE_READ = {
    getattr(torch.Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "requires_grad")
}


class Pending(torch.Tensor):
    """The output of a branch that another rank is computing; from `fill` on an ordinary tensor.

    Until then it cannot be computed with: a pipeline that does so needs it before the other call, and would
    silently get something else.
    """

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Answer questions about its form, and no others."""
        if func not in _MAY_BE_READ:
            raise RuntimeError(
                f"cfg: the pipeline uses the output of its first call ({getattr(func, '__name__', func)}) "
                "before it makes the second, so the two cannot be made at the same time; use cfg=1"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def fill(self, value: torch.Tensor) -> None:
        """Become `value`."""
        with torch._C.DisableTorchFunctionSubclass():
            self.data = value
        self.__class__ = torch.Tensor  # pyright: ignore[reportAttributeAccessIssue]


class SplitGuidance:
    """The guidance branches of a pipeline, each on ranks of its own.

    Args:
        pair: this rank and the one that has the other branch; the first of them has the conditional one.
        place: of this rank among those of its branch.
        target: the pipeline, or a bare transformer.
        spec: of its transformer.

    Attributes:
        branch: what this rank makes.

    Raises:
        ValueError: the model has branches or outputs beyond the two.
    """

    def __init__(self, pair: Group, place: int, target: Any, spec: ModelSpec) -> None:
        is_plain = len(spec.outputs) < 2 and not spec.further_calls
        require(is_plain, "cfg", 2, f"1, for {spec.transformer} gives more than a video and its guidance")
        self.pair, self.place, self.spec = pair, place, spec
        self.guidance = Guidance.parse(spec.guidance)
        self._order = sorted(self.guidance.order, key=lambda name: name != LEAD)  # as in the pair
        self.branch = self._order[pair.rank]
        self._target = target
        self._is_inside = False  # of `share`: the model is called with the rows of this rank's branch
        self._first: tuple[tuple[str, ...], Any] | None = None  # the first of two calls, and its output
        self._form: tuple[torch.Size, torch.dtype] | None = None  # of this rank's last output
        self._call: tuple[tuple[str, ...], dict[str, Any]] = (), {}  # under way, where no seat sees to it

    # ---------------------------------------------------------------- what calls do

    def share(
        self,
        branches: tuple[str, ...],
        arguments: dict[str, Any],
        compute: Callable[[tuple[str, ...]], Any],
    ) -> Any:
        """A call of the model: compute this rank's branch, and get the other one.

        Args:
            branches: of the call.
            arguments: of the call by name; cut down to this rank's rows.
            compute: makes the output of the branches it is given.
        """
        self._begin(branches, arguments)
        output = None
        if self.branch in branches:
            self._is_inside = True
            try:
                output = compute((self.branch,))
            except BaseException:
                self._first = None
                raise
            finally:
                self._is_inside = False
        return self._end(branches, arguments, output)

    def close_evaluation(self) -> None:
        """The scheduler takes its step.

        Raises:
            RuntimeError: only one of two branches was asked for.
        """
        if self._first is not None:
            (branch,), _ = self._first
            self._first = None
            raise RuntimeError(
                f"cfg: the pipeline asked for the branch {branch} only in this evaluation, so the ranks of "
                "the other one have nothing to do; use cfg=1 where guidance is off or pauses"
            )

    def _begin(self, branches: tuple[str, ...], arguments: dict[str, Any]) -> None:
        """Before a call: cut the arguments; the latents of the ranks with the conditional branch count."""
        is_flagged = not isinstance(self._target, nn.Module) and self.spec.guided == "flag"
        is_off = is_flagged and not is_guided(self._target)
        if is_off or (self.guidance.kind == "batched" and len(branches) == 1):
            raise ValueError("cfg: given 2, allowed: 1, for guidance is off: there is one branch only")
        if self._first is not None and self._first[0] == branches:
            self.close_evaluation()
        if self.branch in branches:
            arguments.update(select_branches(arguments, self.spec.rows, branches, (self.branch,)))
            latent = self.spec.rows[0]
            arguments[latent] = self.pair.broadcast(arguments[latent])

    def _end(self, branches: tuple[str, ...], arguments: dict[str, Any], output: Any) -> Any:
        """After a call: what the pipeline gets, both branches, or of two calls the one it asked for."""
        if output is not None:
            [sample] = samples_of(output)
            self._form = sample.shape, sample.dtype
        if len(branches) > 1:
            rows = dict(zip(self._order, self._gather(output), strict=True))
            return with_samples(output, [torch.cat([rows[branch] for branch in branches])])
        if self._first is None:
            first = self._pend(arguments) if output is None else output
            self._first = branches, first
            return first
        (_, first), self._first = self._first, None
        if output is None:
            return with_samples(first, [self._gather(first)[1 - self.pair.rank]])
        [pending] = samples_of(first)
        assert isinstance(pending, Pending), "this rank makes one of the two"
        pending.fill(self._gather(output)[1 - self.pair.rank])
        return output

    def _gather(self, output: Any) -> tuple[torch.Tensor, ...]:
        """The samples of both branches, the conditional one's first."""
        [sample] = samples_of(output)
        return self.pair.all_gather(sample, 0, [len(sample)] * 2).chunk(2)

    def _pend(self, arguments: dict[str, Any]) -> Any:
        """An output that is still to come; before there was any, of the latent's size."""
        latent = arguments[self.spec.rows[0]]
        shape, dtype = self._form or (latent.shape, latent.dtype)
        empty = torch.empty(shape, dtype=dtype, device=latent.device)
        pending = torch.Tensor._make_subclass(Pending, empty)
        is_named = arguments.get("return_dict", True)
        return Transformer2DModelOutput(sample=pending) if is_named else (pending,)

    # ---------------------------------------------------------------- where no seat is in front

    def attach(self, stack: ExitStack, module: nn.Module) -> None:
        """See to the calls of a transformer that no seat sees to, until the stack closes."""
        stack.callback(module.register_forward_pre_hook(self._open, with_kwargs=True).remove)
        replace_attribute(stack, module, "forward", _Forward(self, module.forward))
        stack.callback(module.register_forward_hook(self._close, with_kwargs=True).remove)

    def _open(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_inside:
            return None
        calls = self.guidance.calls(is_guided=True)
        branches = calls[0 if self._first is None else 1]
        bound = inspect.signature(module.forward).bind(*args, **kwargs)
        self._call = branches, bound.arguments
        self._begin(branches, bound.arguments)
        return bound.args, bound.kwargs

    def compute(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A transformer's forward, if the call is for this rank; else None."""
        branches, _ = self._call
        if not self._is_inside and self.branch not in branches:
            return None
        try:
            return forward(*args, **kwargs)
        except BaseException:
            self._first = None
            raise

    def _close(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if self._is_inside:
            return output
        (branches, arguments), self._call = self._call, ((), {})
        return self._end(branches, arguments, output)


class _Forward:
    """In the place of a transformer's forward, with its signature."""

    def __init__(self, split: SplitGuidance, forward: Callable[..., Any]) -> None:
        functools.update_wrapper(self, forward)
        self._split, self._forward = split, forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._split.compute(self._forward, args, kwargs)
