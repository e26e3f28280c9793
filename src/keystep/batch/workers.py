"""What the batch knows of its workers: they are started, given items, and report."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, Protocol

from keystep.batch.item import Item, Product

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
PACKAGES = ("keystep", "torch", "diffusers", "transformers")
MAX_ERROR_LENGTH = 500  # characters; some messages print whole tensors

Maker = Callable[[Item], Product]


class Job(Protocol):
    """What workers do. Goes to them by pickle, so keep it small and its class importable."""

    def load(self) -> Maker:
        """Load what is needed once; returns the function that makes an item.

        The maker raises `ValueError` for an item that can never be made. Any other exception may be the
        process's fault: the item is tried again, on a fresh worker.
        """
        ...


@dataclass(frozen=True)
class Ready:
    """The worker has loaded everything.

    Attributes:
        name: `host:process`.
        versions: of the packages that decide what a video looks like, e.g. `torch 2.13.0`.
    """

    name: str
    versions: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """The item is made."""

    product: Product


@dataclass(frozen=True)
class Failed:
    """Loading or an item raised.

    Attributes:
        error: what, in one line.
        kind: `input` = it would again; `disk full`; `crash` = anything else, after which the process is not
            to be trusted (a CUDA error breaks all that follows in it).
    """

    error: str
    kind: Literal["input", "disk full", "crash"]


@dataclass(frozen=True)
class Lost:
    """The worker is dead, whatever it worked on is not made."""

    reason: str


Report = Ready | Made | Failed
Event = Report | Lost


class Workers(Protocol):
    """Somewhere to run a job: `num` workers, numbered from 0, of which any may die at any time."""

    num: int

    def start(self, worker: int) -> None:
        """Start a worker under this number, where none is; `Ready`, `Failed` or `Lost` will follow."""
        ...

    def end(self, worker: int) -> None:
        """End a worker, whatever it does; nothing more comes from it."""
        ...

    def submit(self, worker: int, item: Item) -> None:
        """Give an item to a worker that is ready; `Made`, `Failed` or `Lost` will follow."""
        ...

    def wait(self, timeout_s: float | None) -> list[tuple[int, Event]]:
        """Wait until something happens, or for so many seconds; None = as long as it takes."""
        ...

    def stop(self) -> None:
        """End all workers; none is left when this returns."""
        ...


class Worker:
    """The worker's end of it: runs a job and puts whatever comes of it into a report.

    Asking for the same thing twice in a row gives the same answer and makes nothing anew, so that one may ask
    again when an answer was lost on the way.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._maker: Maker | None = None
        self._last: tuple[str, Report] | None = None

    def load(self) -> Report:
        """Load the job."""
        try:
            if self._maker is None:
                self._maker = self._job.load()
        except Exception as error:
            return describe_failure(error)
        versions = tuple(f"{package} {version(package)}" for package in PACKAGES)
        return Ready(f"{socket.gethostname()}:{os.getpid()}", versions)

    def make(self, item: Item) -> Report:
        """Make an item; `load` comes first."""
        assert self._maker is not None
        if self._last is None or self._last[0] != item.id:
            try:
                report: Report = Made(self._maker(item))
            except Exception as error:
                report = describe_failure(error)
            self._last = item.id, report
        return self._last[1]


def describe_failure(error: Exception) -> Failed:
    """An exception as a report."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")[:MAX_ERROR_LENGTH]
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return Failed(text, "disk full")
    return Failed(text, "input" if isinstance(error, ValueError) else "crash")
