"""The rows and columns of the matrix: tiny pipelines, and methods with constants that skip on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from keystep.calibrate import edges_of
from keystep.methods.auto import Auto
from keystep.methods.registry import METHODS as REGISTRY
from keystep.methods.static import Static, name_edge
from keystep.models.registry import find_spec
from tests.families.parts import Family
from tests.laws.test_families import FAMILIES, STILL
from tests.laws.test_families import METHODS as LOOSE
from tests.matrix import METHODS, scale_of
from tests.zoo import ZOO, Zoo

STEPS = 12  # the shortest run in which every method skips
CFG = "+cfg"
ANYWHERE = {"auto": Auto(speedup=2.0)}  # a budget is met on random weights too
FILES = TemporaryDirectory()  # until the process ends


class Subject(Protocol):
    """A tiny pipeline and how it is called.

    Attributes:
        name: of its row.
        max_batch: as many prompts as it takes.
        constants: name -> method that skips on its random weights.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_batch(self) -> int: ...

    @property
    def constants(self) -> dict[str, Any]: ...

    def build(self) -> Any: ...

    def sample(self, pipe: Any, batch: int, is_guided: bool, steps: int) -> torch.Tensor: ...


@dataclass(frozen=True)
class FromZoo:
    """A row of the zoo."""

    zoo: Zoo
    max_batch: int = 2

    @property
    def constants(self) -> dict[str, Any]:
        return METHODS

    @property
    def name(self) -> str:
        return self.zoo.name

    def build(self) -> Any:
        return self.zoo.build()

    def sample(self, pipe: Any, batch: int, is_guided: bool, steps: int) -> torch.Tensor:
        return self.zoo.sample(pipe, batch=batch, scale=scale_of(is_guided), steps=steps)


@dataclass(frozen=True)
class FromFamily:
    """A row of the families."""

    family: Family

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def max_batch(self) -> int:
        return self.family.max_batch

    @property
    def constants(self) -> dict[str, Any]:
        own = LOOSE | {"adacache": STILL}
        bases = {name.removesuffix(CFG) for name in own}
        others = {name: method for name, method in METHODS.items() if name.removesuffix(CFG) not in bases}
        return own | others

    def build(self) -> Any:
        return self.family.build()

    def sample(self, pipe: Any, batch: int, is_guided: bool, steps: int) -> torch.Tensor:
        return self.family.sample(pipe, batch, is_guided, steps)


SUBJECTS: dict[str, Subject] = {
    subject.name: subject for subject in (*map(FromZoo, ZOO), *map(FromFamily, FAMILIES))
}
NAMES = tuple(REGISTRY)


def method_of(name: str, model: str) -> Any:
    """The method of a registered name with constants for a model."""
    base = name.removesuffix(CFG)
    has_cfg = name != base
    if REGISTRY[name].cls is Static:
        return Static(schedule_of(model), compute=0.6, cfg=has_cfg)
    constants = SUBJECTS[model].constants
    found, other = constants.get(name, ANYWHERE.get(name)), constants.get(base if has_cfg else base + CFG)
    if found is None and other is not None:
        found = replace(other, cfg=has_cfg)
    if not isinstance(found, REGISTRY[name].cls):
        raise KeyError(f"{name}: give it a row in tests/matrix.py METHODS, of {REGISTRY[name].cls.__name__}")
    return found


@cache
def schedule_of(model: str) -> str:
    """A file for `Static`, as if longer stretches of skips were worse."""
    pipe = pipe_of(model)
    path = Path(FILES.name) / f"{model}.json"
    measured = {
        "method": "static",
        "model": find_spec(pipe.transformer, pipe).name,
        "num_evaluations": STEPS,
        "values": {name_edge(edge): float(edge[1] - edge[0]) for edge in edges_of(STEPS, max_gap=3)},
    }
    path.write_text(json.dumps(measured))
    return str(path)


def sample_of_pairs(seed: int) -> Iterator[tuple[str, str]]:
    """(model, method): every model and every method at least once; seeds 0, 1, ... go through all pairs."""
    models = list(SUBJECTS)
    for i in range(max(len(NAMES), len(models))):
        yield models[(i + seed) % len(models)], NAMES[i % len(NAMES)]


@cache
def pipe_of(model: str) -> Any:
    """The pipeline that all cells of a model share: leaving restores it, or a cell says no."""
    return SUBJECTS[model].build()


@cache
def untouched(model: str) -> Any:
    """A pipeline that is never accelerated."""
    return SUBJECTS[model].build()
