"""Run a pipeline once, as it is attached at the moment, and count: one ruler for everybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from keystep.metrics.flops import FlopCounter
from keystep.metrics.loop import read_loop
from keystep.plan.memory import PeakMemory


@dataclass(frozen=True)
class Counted:
    """One generation, counted.

    Attributes:
        frames: what the pipeline returned: videos or latents, the sample in dimension 0.
        step_flops: operations between the ends of the scheduler steps, the first from the first call of a
            transformer.
        held_bytes: the most that was alive at the end of a scheduler step, beyond weights and inputs, by
            storage: what a cache holds, and the latents that everybody holds.
        uncounted: attention operators that have no formula and are missing in `step_flops`.
        peak_bytes: the accelerator's most allocated memory; 0 without one.
    """

    frames: Any
    step_flops: tuple[int, ...]
    held_bytes: int
    uncounted: tuple[str, ...]
    peak_bytes: int

    @property
    def flops(self) -> int:
        """Operations of the denoising loop."""
        return sum(self.step_flops)


def count(pipe: Any, arguments: Mapping[str, Any]) -> Counted:
    """Generate once, counting operations and bytes; far slower than the generation itself."""
    memory = PeakMemory(_existing(pipe, arguments))
    counter = FlopCounter(memory.see)
    has_device = torch.cuda.is_available()
    if has_device:
        torch.cuda.reset_peak_memory_stats()
    ends: list[int] = []
    held: list[int] = []

    def end_step(num_done: int, num_planned: int) -> None:
        del num_done, num_planned
        ends.append(counter.total)
        held.append(memory.num_bytes)

    with read_loop(pipe, lambda: counter.total, end_step) as loop, counter:
        output = pipe(**arguments)
    assert loop.begin is not None, "read_loop reads the beginning before any end"
    flops = tuple(int(after - before) for before, after in pairwise([loop.begin, *ends]))
    peak = torch.cuda.max_memory_allocated() if has_device else 0
    return Counted(_frames(output), flops, max(held), tuple(sorted(counter.uncounted)), peak)


def generate(pipe: Any, arguments: Mapping[str, Any]) -> Any:
    """Generate once; the frames alone."""
    return _frames(pipe(**arguments))


def _frames(output: Any) -> Any:
    frames = getattr(output, "frames", None)
    if frames is None:
        raise ValueError(f"the pipeline returned {type(output).__name__} without frames: it makes no video")
    return frames


def _existing(pipe: Any, arguments: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """Tensors that are there before the call: weights, buffers, inputs."""
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            yield from component.parameters()
            yield from component.buffers()
    yield from (leaf for leaf in tree_leaves(dict(arguments)) if isinstance(leaf, torch.Tensor))
