"""Room for the graphs of compiled blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import nn

# A block's code is compiled once per layout of its inputs, per number of guidance rows (all, conditional
# only) and for each set of parts that are skipped together. Latte, whose spatial and temporal blocks share
# one forward, needs up to 14 graphs for a method and 3 for the plain pipeline, 43 for all methods one after
# the other, and again as many for another batch size. torch.compile gives up at 8 unless told otherwise.
GRAPHS_PER_FORWARD = 128


def budget_for(modules: Iterable[nn.Module]) -> Callable[[], AbstractContextManager[Any]]:
    """A context to run the modules in: allows `GRAPHS_PER_FORWARD` graphs if one of them is compiled."""
    if not any(vars(module).get("_compiled_call_impl") is not None for module in modules):
        return nullcontext
    import torch._dynamo.config as config

    limit = max(config.recompile_limit, GRAPHS_PER_FORWARD)
    return lambda: config.patch(recompile_limit=limit)
