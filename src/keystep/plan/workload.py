"""What is planned: a model, a size and a batch, as a module without weights and the calls it gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn

from keystep.engine.outputs import samples_of
from keystep.errors import require
from keystep.models.catalogue import import_name
from keystep.models.spec import ModelSpec
from keystep.plan.blueprint import Blueprint, Inputs, Video
from keystep.plan.cost import tally
from keystep.plan.meta import FusedAttention, build_transformer
from keystep.what import Guidance


@dataclass(frozen=True)
class Workload:
    """A run to be planned; guidance is on.

    Attributes:
        blueprint: of the model.
        spec: of the model.
        video: its size.
        num_steps: sampling steps.
        batch: videos at once.
        dtype: of weights and computation.

    Raises:
        ValueError: a size that the model cannot make.
    """

    blueprint: Blueprint
    spec: ModelSpec
    video: Video
    num_steps: int
    batch: int = 1
    dtype: torch.dtype = torch.bfloat16

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", self.batch, "videos >= 1")
        require(self.num_steps >= 1, "steps", self.num_steps, "steps >= 1")
        self.blueprint.latent_of(self.video)

    @property
    def num_evaluations(self) -> int:
        """N, model evaluations of the run."""
        return self.num_steps + self.blueprint.num_extra_evaluations

    @property
    def config(self) -> dict[str, Any]:
        """All arguments of the transformer's class."""
        parameters = signature(import_name(self.blueprint.transformer).__init__).parameters.values()
        config = {p.name: p.default for p in parameters if p.default is not p.empty}
        config.update(self.blueprint.config)
        if self.blueprint.length:
            config[self.blueprint.length] = self.blueprint.latent_of(self.video)[0]
        return config

    @property
    def depth(self) -> int:
        """Blocks of each list."""
        return self.config[self.blueprint.depth]

    def build(self, depth: int | None = None) -> nn.Module:
        """The transformer without weights; `depth` blocks of each list instead of all."""
        config = self.config | ({} if depth is None else {self.blueprint.depth: depth})
        return build_transformer(self.blueprint.transformer, config, self.dtype)

    def make_calls(self) -> list[Inputs]:
        """Arguments of the calls that one evaluation makes."""
        calls = Guidance.parse(self.spec.guidance).calls(is_guided=True)
        return [self._make_inputs(len(branches) * self.batch) for branches in calls]

    def _make_inputs(self, rows: int) -> Inputs:
        latent = self.blueprint.latent_of(self.video)
        sizes = dict(zip("THW", latent, strict=True)) | {"B": rows, "C": self.config["in_channels"]}
        text = (rows, self.blueprint.num_text_tokens, self.blueprint.text_width)
        with torch.device("meta"):
            return {
                self.spec.rows[0]: torch.empty([sizes[axis] for axis in self.spec.latent], dtype=self.dtype),
                "timestep": torch.empty(rows, dtype=torch.float32),
                self.spec.condition: torch.empty(text, dtype=self.dtype),
                **self.blueprint.more_inputs(self.config, latent, rows, self.dtype),
            }


class Watch:
    """What a model does while it runs on the meta device.

    Args:
        attention: sees every attention.
    """

    def __init__(self, attention: FusedAttention) -> None:
        self._attention = attention
        self._latents: list[torch.Size] = []
        self._outputs: list[torch.Size] = []

    def see_call(self, latent: str, module: nn.Module, args: Any, kwargs: Inputs, output: Any) -> None:
        """A forward hook, but for the name of the argument that is the latent."""
        arguments = signature(module.forward).bind(*args, **kwargs).arguments
        self._latents.append(arguments[latent].shape)
        self._outputs.append(samples_of(output)[0].shape)

    def take(self, num_frames: int) -> tuple[Counter[str], Counter[str]]:
        """Calls and values since the last time, see `tally`."""
        seen = tally(self._attention.calls, self._latents, self._outputs, num_frames)
        for shapes in (self._attention.calls, self._latents, self._outputs):
            shapes.clear()
        return seen


@contextmanager
def on_meta(transformer: nn.Module, spec: ModelSpec) -> Iterator[Watch]:
    """Where a model of a workload runs: no gradients, fused attention; what it does is watched."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        watch = Watch(stack.enter_context(FusedAttention()))
        see_call = partial(watch.see_call, spec.rows[0])
        stack.callback(transformer.register_forward_hook(see_call, with_kwargs=True).remove)
        yield watch
