"""What one evaluation of a model takes: tokens, bytes, FLOPs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from keystep.metrics.flops import FlopCounter
from keystep.plan.cost import Cost
from keystep.plan.memory import PeakMemory
from keystep.plan.workload import Workload, on_meta


@dataclass(frozen=True)
class ModelPlan:
    """The denoiser in figures; an evaluation is all guidance branches of one noise level.

    Attributes:
        num_parameters: values in the weights.
        weight_bytes: of the denoiser alone.
        num_latent_frames: after temporal patching.
        tokens_per_frame: of a latent frame.
        num_text_tokens: padded.
        cost: of one evaluation in which nothing is skipped (a multiply-add is two operations).
        activation_bytes: the most that is alive at once during an evaluation, without weights, inputs and
            whatever is cached.
    """

    num_parameters: int
    weight_bytes: int
    num_latent_frames: int
    tokens_per_frame: int
    num_text_tokens: int
    cost: Cost
    activation_bytes: int

    @property
    def num_tokens(self) -> int:
        """Video tokens of one branch and sample."""
        return self.num_latent_frames * self.tokens_per_frame


def plan_model(workload: Workload) -> ModelPlan:
    """Run one evaluation of the whole model on the meta device and count."""
    transformer, calls = workload.build(), workload.make_calls()
    weights = [*transformer.parameters(), *transformer.buffers()]
    given = [*weights, *(value for value in tree_leaves(calls) if isinstance(value, torch.Tensor))]
    counter, memory, entries = FlopCounter(), PeakMemory(given), []
    first_block = transformer.get_submodule(workload.spec.blocks[0]).get_submodule("0")

    def see_entry(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs[workload.spec.streams[0]]
        entries.append(hidden.numel() // hidden.shape[-1])

    with ExitStack() as stack:
        stack.callback(first_block.register_forward_pre_hook(see_entry, with_kwargs=True).remove)
        watch = stack.enter_context(on_meta(transformer, workload.spec))
        for context in (counter, memory):
            stack.enter_context(context)
        for inputs in calls:
            transformer(**inputs, return_dict=False)
    assert not counter.uncounted, counter.uncounted
    latent = calls[0][workload.spec.rows[0]]
    num_frames = workload.spec.count_frames(transformer, calls[0])
    num_calls, values = watch.take(num_frames)
    return ModelPlan(
        num_parameters=sum(value.numel() for value in transformer.state_dict().values()),
        weight_bytes=sum(weight.nbytes for weight in weights),
        num_latent_frames=num_frames,
        tokens_per_frame=entries[0] // len(latent) // num_frames,
        num_text_tokens=workload.blueprint.num_text_tokens,
        cost=Cost(counter.total, calls=num_calls, values=values),
        activation_bytes=memory.peak_bytes,
    )
