"""One cell of the matrix: what one method does to one model, each answer measured from outside."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn

import keystep
from keystep import KeystepWarning
from tests.capability.subjects import STEPS, SUBJECTS, method_of, pipe_of, untouched
from tests.laws.instruments import first_blocks, transformers

COLUMNS = {
    "runs": "a generation with guidance comes to its end",
    "changes": "its latents are not those of the plain pipeline",
    "skips": "fewer operations run in linear layers and convolutions, counted by hooks of the test's own",
    "repeats": "the second generation is bit-identical to the first",
    "batch": "two videos at once: runs, changes, skips",
    "unguided": "guidance off: runs, changes, skips",
    "recovers": (
        "after an exception in the model the next generation is bit-identical to an undisturbed one, and the "
        "plain pipeline to itself"
    ),
}
YES = "yes"


@dataclass(frozen=True)
class Cell:
    """Answers for one method on one model.

    Attributes:
        skipped: part of the counted operations that was left out with guidance and one video, 0 to 1.
        remarks: column -> "no: why", "refused: the error's message", "warned: the warning's" or "n/a: why";
            columns without one: yes.
    """

    skipped: float = 0.0
    remarks: dict[str, str] = field(default_factory=dict)

    def answer(self, column: str) -> str:
        return self.remarks.get(column, YES)


class Breakdown(Exception):
    """Raised inside a model in mid-generation."""


class Operations:
    """Counts multiply-adds of Linear layers and convolutions of a pipeline's transformers."""

    def __init__(self, pipe: Any) -> None:
        self.total = 0
        self._handles = [
            module.register_forward_hook(self._count)
            for transformer in transformers(pipe).values()
            for module in transformer.modules()
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d))
        ]

    def _count(self, module: Any, args: Any, output: torch.Tensor) -> None:
        self.total += output.numel() * module.weight[0].numel()

    def __enter__(self) -> Operations:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True)
class Generation:
    """Latents, operations of the model, and what keystep warned of."""

    latents: torch.Tensor
    operations: int
    warned: tuple[str, ...] = ()


def generate(model: str, batch: int = 1, is_guided: bool = True, pipe: Any = None) -> Generation:
    """One generation, by the pipeline that all cells of a model share if none is given, as it is."""
    pipe = pipe_of(model) if pipe is None else pipe
    with warnings.catch_warnings(record=True) as caught, Operations(pipe) as operations:
        warnings.simplefilter("always")
        latents = SUBJECTS[model].sample(pipe, batch, is_guided, STEPS)
    warned = tuple(str(w.message) for w in caught if issubclass(w.category, KeystepWarning))
    return Generation(latents, operations.total, warned)


@cache
def plain(model: str, batch: int, is_guided: bool) -> Generation:
    """The plain generation, by a pipeline that is never accelerated."""
    return generate(model, batch, is_guided, untouched(model))


def measure(model: str, name: str) -> Cell:
    """Every column for one method on one model."""
    try:
        method = method_of(name, model)
        with keystep.accelerate(pipe_of(model), method):
            first = generate(model)
            with counting(middle_block(model)) as calls:
                second = generate(model)
    except ValueError as error:
        return Cell(remarks=dict.fromkeys(COLUMNS, name_refusal(error)))
    remarks = dict(judge(model, first, 1, True))
    if not torch.equal(first.latents, second.latents):
        remarks["repeats"] = "no: another video"
    checks: dict[str, Callable[[], str]] = {
        "batch": lambda: other_call(model, method, 2, True),
        "unguided": lambda: other_call(model, method, 1, False),
        "recovers": lambda: recovery(model, method, first.latents, len(calls) // 2),
    }
    for column, check in checks.items():
        remark = answer(check)
        if remark != YES:
            remarks[column] = remark
    if "recovers" in remarks:  # it has run before, so nothing is left to refuse
        remarks["recovers"] = remarks["recovers"].replace("refused:", "no:")
    share = 1 - first.operations / plain(model, 1, True).operations
    return Cell(round(share, 2), remarks)


def answer(check: Callable[[], str]) -> str:
    """What a check says; an error is a no, unless keystep refuses the kind of call."""
    try:
        return check()
    except ValueError as error:
        return name_refusal(error)
    except Exception as error:
        return f"no: {type(error).__name__}: {error}"


def name_refusal(error: ValueError) -> str:
    """What a `ValueError` says; one that nobody raised in words (of a logarithm, of a shape) is a no."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    is_meant = "raise " in (last.line or "")
    return f"refused: {error}" if is_meant else f"no: {type(error).__name__}: {error}"


def judge(model: str, run: Generation, batch: int, is_guided: bool) -> Iterator[tuple[str, str]]:
    """Remarks on one generation: "changes" and "skips"."""
    expected = plain(model, batch, is_guided)
    if run.warned and run.operations >= expected.operations:
        yield "skips", f"warned: {'; '.join(run.warned)}"
        return
    if not run.latents.isfinite().all():
        yield "changes", "no: not finite"
    elif torch.equal(run.latents, expected.latents):
        yield "changes", "no: the plain video"
    if run.operations >= expected.operations:
        yield "skips", "no: and no warning"


def other_call(model: str, method: Any, batch: int, is_guided: bool) -> str:
    """Whether a generation of another kind runs, changes and skips."""
    if batch > SUBJECTS[model].max_batch:
        return "n/a: its pipeline takes one prompt at a time"
    with keystep.accelerate(pipe_of(model), method):
        run = generate(model, batch, is_guided)
    return next((remark for _, remark in judge(model, run, batch, is_guided)), YES)


def recovery(model: str, method: Any, undisturbed: torch.Tensor, fails_after: int) -> str:
    """Whether nothing stays behind after an exception in the middle of a generation."""
    with keystep.accelerate(pipe_of(model), method):
        with failing(middle_block(model), fails_after):
            try:
                generate(model)
            except Breakdown:
                pass
            else:
                return "no: the exception was swallowed"
        if not torch.equal(generate(model).latents, undisturbed):
            return "no: the next generation differs"
    is_plain = torch.equal(generate(model).latents, plain(model, 1, True).latents)
    return YES if is_plain else "no: the plain pipeline differs"


def middle_block(model: str) -> nn.Module:
    """A block that every method runs at times."""
    blocks = first_blocks(pipe_of(model).transformer)
    return blocks[len(blocks) // 2]


@contextmanager
def counting(block: nn.Module) -> Iterator[list[None]]:
    """A list that grows with every call of a block that really runs."""
    calls: list[None] = []
    handle = block.register_forward_pre_hook(lambda *args: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


@contextmanager
def failing(block: nn.Module, calls: int) -> Iterator[None]:
    """A block that fails after so many calls."""
    left = iter(range(calls))

    def fail(module: nn.Module, args: Any) -> None:
        if next(left, None) is None:
            raise Breakdown

    handle = block.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()
