"""A pipeline that costs nothing, and contestants on it that behave well or badly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch

from keystep.lab.contestant import QUALITY, ROBUSTNESS, SPEED, Bench, Contestant, Name, Subject
from tests.metrics.fakes import FakePipeline

STEPS = 8
ROWS = 5 * 8 * 8  # pixels of the fake's latents, a row of the linear layer each
STEP_FLOPS = 2 * ROWS * 3 * 3


class LabPipeline(FakePipeline):
    """The fake with components, prompts in lists, and a guidance scale that it ignores."""

    @property
    def components(self) -> dict[str, Any]:
        return {"transformer": self.transformer, "scheduler": self.scheduler}

    @torch.no_grad()
    def __call__(self, prompt: Any, generator: Any, guidance_scale: float = 2.0, **options: Any) -> Any:
        if isinstance(prompt, str):
            return super().__call__(prompt, generator, "np", **options)
        results = [self(text, each, **options) for text, each in zip(prompt, generator, strict=True)]
        return SimpleNamespace(frames=[result.frames[0] for result in results])


def call(prompt: str, seed: int, num_steps: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"prompt": prompt, "generator": generator, "num_inference_steps": num_steps}


SUBJECT = Subject(
    "fake", LabPipeline, call, ("a", "of"), ("tuned",), STEPS, (QUALITY, SPEED, ROBUSTNESS),
    lambda video, prompt: {"bright": bool(video.mean() > 0.1)},
)  # fmt: skip


def make_bench() -> Bench:
    return Bench(SUBJECT, LabPipeline(), STEPS)


class Silent:
    """A watcher that keeps what it was told, and ends after `limit` measurements."""

    def __init__(self, limit: int | None = None) -> None:
        self.labels: list[str] = []
        self.limit = limit

    def begin(self, label: str) -> None:
        self.labels.append(label)

    def is_over(self) -> bool:
        return self.limit is not None and len(self.labels) >= self.limit


def contestant(method: str, wrap: Callable[..., Any], is_default: bool = True) -> Contestant:
    """A contestant that replaces the transformer's forward by `wrap(original, state)` while attached."""

    @contextmanager
    def attach(bench: Bench) -> Iterator[None]:
        transformer = bench.pipe.transformer
        original = transformer.forward
        transformer.forward = wrap(original, {"calls": 0})
        try:
            yield
        finally:
            del transformer.forward

    return Contestant(Name("rival", method, "default"), attach, is_default=is_default)


def reuse(num_steps: int) -> Callable[..., Any]:
    """Compute even calls of a generation of `num_steps`, reuse on odd ones; nothing resets the count."""

    def wrap(original: Any, state: dict[str, Any]) -> Any:
        def forward(x: torch.Tensor) -> torch.Tensor:
            if state["calls"] % num_steps % 2 == 0:
                state["output"] = original(x)
            state["calls"] += 1
            return state["output"]

        return forward

    return wrap


def never(original: Any, state: dict[str, Any]) -> Any:
    return original


def raising(original: Any, state: dict[str, Any]) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        raise IndexError("tuple index\nout of range")

    return forward


def growing(original: Any, state: dict[str, Any]) -> Any:
    """Adds something for every call it has ever seen: the second video is not the first."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        state["calls"] += 1
        return original(x) + 0.001 * state["calls"]

    return forward


SKIPPING = contestant("skipping", reuse(STEPS))
IDLE = contestant("idle", never)
BROKEN = contestant("broken", raising)
LEAKING = contestant("leaking", growing)
