"""Snapshots of a scheduler: everything that its steps change, nothing that they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

ADDED_TO = "cur_model_output"  # by PNDM's Runge-Kutta steps, in place
FOLLOWED = ("step", "set_timesteps")  # what may stand in front of its methods is no part of its state


def take_snapshot(scheduler: Any) -> Any:
    """A scheduler in the same state whose steps do not touch the original's.

    Tensors are shared, for steps replace them (all but one, which is copied); the lists that hold them are
    not.
    """
    twin = object.__new__(type(scheduler))
    twin.__dict__.update(_state(scheduler))
    return twin


def restore(scheduler: Any, snapshot: Any) -> None:
    """Put a scheduler into the state of a snapshot."""
    scheduler.__dict__.update(_state(snapshot))


def _state(scheduler: Any) -> dict[str, Any]:
    return {name: _own(name, value) for name, value in vars(scheduler).items() if name not in FOLLOWED}


def _own(name: str, value: Any) -> Any:
    if name == ADDED_TO and isinstance(value, torch.Tensor):
        return value.clone()
    return type(value)(value) if type(value) in (list, dict, deque) else value


def tensors_of(scheduler: Any) -> Iterator[torch.Tensor]:
    """All tensors a scheduler holds: its tables, and what its steps remember."""
    for value in vars(scheduler).values():
        for item in value if isinstance(value, (list, tuple, deque)) else (value,):
            if isinstance(item, torch.Tensor):
                yield item
