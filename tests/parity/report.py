"""Results of cases, one line each, and how errors are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ABSOLUTE, RELATIVE, EXACT = 1e-4, 1e-4, 0.0  # one forward; a trajectory per evaluation; decisions
NAN = float("nan")


@dataclass(frozen=True)
class Result:
    """One compared quantity.

    Attributes:
        name: folder, file and quantity.
        error: largest error, or the number of differences where `tolerance` is 0; None = not run.
        tolerance: the largest error that passes.
        note: how it was run, or why it was not.
    """

    name: str
    error: float | None
    tolerance: float = EXACT
    note: str = ""

    @property
    def status(self) -> str:
        """ok, FAIL (also for nan) or n/a."""
        if self.error is None:
            return "n/a"
        return "ok" if self.error <= self.tolerance else "FAIL"

    def line(self, width: int) -> str:
        """One line: name, error, tolerance, status, note."""
        numbers = f"{'-':>9} {'-':>7}" if self.error is None else f"{self.error:9.2e} {self.tolerance:7.0e}"
        return f"{self.name:<{width}} {numbers}  {self.status:<4}  {self.note}".rstrip()


@dataclass(frozen=True)
class Case:
    """A file that holds something to compare: what it is called, and the comparison."""

    name: str
    path: Path
    run: Callable[[str, Path], Iterable[Result]]

    def results(self) -> Iterator[Result]:
        """Run it; anything that goes wrong is a failure of the case, not of the runner."""
        try:
            yield from self.run(self.name, self.path)
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            yield Result(self.name, NAN, note=f"{type(error).__name__}: {text}")


def not_run(name: str, reason: str) -> Result:
    """A case that is not run, and why."""
    return Result(name, None, note=reason)


def largest_difference(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """max |ours - golden|; nan where the shapes differ."""
    if ours.shape != golden.shape:
        return NAN
    return (ours.double() - golden.double()).abs().max().item()


def relative_l2(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """|ours - golden|_2 / |golden|_2; nan where the shapes differ."""
    if ours.shape != golden.shape:
        return NAN
    difference = (ours.double() - golden.double()).norm().item()
    return difference / max(golden.double().norm().item(), 1e-30)


def worst(errors: Sequence[float]) -> tuple[float, int]:
    """The largest error and its index; nan counts as the largest, nothing at all as nan."""
    if not errors:
        return NAN, -1
    index = max(range(len(errors)), key=lambda i: (errors[i] != errors[i], errors[i]))
    return errors[index], index


def compare_series(name: str, ours: Sequence[torch.Tensor], golden: torch.Tensor, note: str = "") -> Result:
    """Relative L2 of every element of a series, the worst one counts."""
    if len(ours) != len(golden):
        return Result(name, NAN, RELATIVE, f"{len(ours)} of {len(golden)} evaluations")
    error, index = worst([relative_l2(a, b) for a, b in zip(ours, golden, strict=True)])
    text = f"worst of {len(golden)} at {index}" + (f"; {note}" if note else "")
    return Result(name, error, RELATIVE, text)
