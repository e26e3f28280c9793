"""How the size of the stack's residual changes from evaluation to evaluation of a plain generation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from keystep.calibrate.generation import after_each_step, final_latent
from keystep.engine.clock import is_guided
from keystep.engine.target import find_transformers
from keystep.models.spec import ModelSpec
from keystep.what import LEAD, Guidance
from keystep.what.branch import rows_of


def measure_ratios(pipe: Any, spec: ModelSpec, arguments: Mapping[str, Any], seed: int) -> list[float]:
    """|residual| over |residual of the evaluation before|, mean over tokens; 1 for the first.

    Only the conditional branch is looked at.

    Args:
        pipe: a pipeline, nothing attached.
        spec: of its transformer.
        arguments: keyword arguments of its call, for one video.
        seed: of the initial noise.

    Returns:
        A ratio for each evaluation.
    """
    guidance = Guidance.parse(spec.guidance)
    calls: list[torch.Tensor] = []  # of the evaluation under way: sizes of the residual, by token
    sizes: list[torch.Tensor] = []  # of the conditional branch, evaluation by evaluation

    def note(residual: torch.Tensor) -> None:
        if guidance.kind == "batched" and is_guided(pipe):
            residual = rows_of(residual, LEAD, guidance.order)
        calls.append(residual.float().norm(dim=-1))

    def end_evaluation() -> None:
        sizes.append(calls[guidance.order.index(LEAD) if len(calls) > 1 else 0])
        calls.clear()

    with ExitStack() as stack, torch.no_grad():
        for module in find_transformers(pipe).values():
            stack.enter_context(_watch(module, spec, note))
        after_each_step(stack, pipe.scheduler, end_evaluation)
        final_latent(pipe, arguments, seed)
    return [1.0, *(float((now / before).mean()) for before, now in pairwise(sizes))]


@contextmanager
def _watch(module: nn.Module, spec: ModelSpec, note: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Gives `note` the stack's output minus its input, call by call."""
    paths = spec.blocks_in_order(module)
    entry: list[torch.Tensor] = []

    def enter(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entry[:] = [args[0] if args else kwargs[spec.streams[0]]]

    def leave(hidden: torch.Tensor) -> None:
        note(hidden.to(entry[0].dtype) - entry.pop())

    first, last = module.get_submodule(paths[0]), module.get_submodule(paths[-1])
    handles = [first.register_forward_pre_hook(enter, with_kwargs=True)]
    if spec.exit:
        behind = module.get_submodule(spec.exit)
        handles.append(behind.register_forward_pre_hook(lambda _, args: leave(args[0])))
    else:
        handles.append(last.register_forward_hook(lambda _, __, output: leave(first_of(output))))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_of(output: Any) -> torch.Tensor:
    """The hidden state among the streams that a block returns."""
    return output[0] if isinstance(output, tuple) else output
