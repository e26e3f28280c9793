"""What is accelerated: the transformers of a pipeline. And whether it is the one that is running."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

NAMES = ("transformer", "transformer_2")


def find_transformers(target: Any) -> dict[str, nn.Module]:
    """The transformers of a pipeline by attribute name, or a bare one.

    Raises:
        ValueError: if there is none.
    """
    models = _transformers(target)
    if not models:
        raise ValueError(
            f"pipe: {type(target).__name__} has no transformer to accelerate (looked for {', '.join(NAMES)})"
        )
    return models


def _transformers(target: Any) -> dict[str, nn.Module]:
    if isinstance(target, nn.Module):
        return {"transformer": target}
    found = {name: getattr(target, name, None) for name in NAMES}
    return {name: module for name, module in found.items() if isinstance(module, nn.Module)}


def check_same(target: Any, models: Mapping[str, nn.Module]) -> None:
    """Raise if a pipeline has other transformers than `models`, for then nothing would be skipped in them."""
    found = _transformers(target)
    for name in NAMES:
        if found.get(name) is not models.get(name):
            raise RuntimeError(
                f"{name}: pipe.{name} was replaced after keystep attached, so nothing would be skipped; set "
                "or compile the transformer first, then call keystep.accelerate() or keystep.enable() again"
            )


# ---------------------------------------------------------------- who is running


def find_running(target: Any, *schedulers: Any) -> Any:
    """The pipeline at work with one of the schedulers: the nearest up the stack that has it as its own, along
    with networks, or `target`. None = a loop of somebody's own.

    Call it where timesteps are set: before Python 3.13 the look into a frame keeps what its variables hold
    alive until it returns, and there most pipelines have not made their latents yet.
    """
    if torch.compiler.is_compiling():  # there are no frames to walk in a graph
        return None
    for caller in _callers():
        is_owner = any(has_scheduler(caller, scheduler) for scheduler in schedulers)
        if caller is target or (is_owner and _networks(caller)):
            return caller
    return None


def has_scheduler(owner: Any, scheduler: Any) -> bool:
    """Whether an object has the scheduler as its own; nothing of the object's code is run to find out."""
    attributes = getattr(owner, "__dict__", {})
    return scheduler is not None and attributes.get("scheduler") is scheduler


def shares(running: Any, target: Any, models: Mapping[str, nn.Module]) -> bool:
    """Whether a pipeline that is not the target runs the target's transformers.

    Raises:
        RuntimeError: it does so by itself; a part that the target calls may.
    """
    if not any(network is module for network in _networks(running) for module in models.values()):
        return False
    if any(caller is target for caller in _callers()):
        return True
    raise RuntimeError(
        f"pipe: the {type(running).__name__} that is running shares transformer and scheduler with the "
        f"{type(target).__name__} that is accelerated, but has a guidance of its own; call keystep.disable() "
        "with that one, then keystep.accelerate() or keystep.enable() with the one that runs"
    )


def _networks(owner: Any) -> list[nn.Module]:
    if isinstance(owner, nn.Module):
        return [owner, *owner.children()]
    return [value for value in vars(owner).values() if isinstance(value, nn.Module)]


def _callers() -> Iterator[Any]:
    """`self` of the methods up the stack, nearest first."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_argcount and frame.f_code.co_varnames[0] == "self":
            yield frame.f_locals.get("self")
        frame = frame.f_back
