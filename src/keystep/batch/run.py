"""The loop behind every kind of worker: start, hand out, keep what comes back, try again what does not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from keystep.batch.item import Item, Record
from keystep.batch.manifest import Manifest
from keystep.batch.queue import MAX_TRIES, Backoff, Queue
from keystep.batch.workers import DISK_FULL, Event, Failed, Lost, Made, Ready, Workers


class Watcher(Protocol):
    """Who wants to know how far a batch is."""

    def on_finished(self, record: Record) -> None:
        """An item is in the manifest."""

    def on_retry(self, item: Item, reason: str) -> None:
        """An item failed and is tried again later."""

    def on_set_aside(self, item: Item, error: str) -> None:
        """An item is given up."""

    def on_loss(self, worker: int, reason: str) -> None:
        """A worker died before it was given anything, or could not load."""


@dataclass
class _Seat:
    """One worker's place.

    Attributes:
        state: absent, starting, idle, working, or closed for good.
        name: of the worker that sits there.
        item: what it works on.
        starts_at: an absent one is started no earlier.
        num_losses: in a row, since something was finished here.
        num_false_starts: in a row, since something was handed out here.
    """

    state: Literal["absent", "starting", "idle", "working", "closed"] = "absent"
    name: str = ""
    item: Item | None = None
    starts_at: float = 0.0
    num_losses: int = 0
    num_false_starts: int = 0


def run_batch(
    items: Sequence[Item],
    workers: Workers,
    manifest: Manifest,
    watcher: Watcher,
    *,
    max_tries: int = MAX_TRIES,
    backoff: Backoff | None = None,
) -> None:
    """Make items; returns when each is finished or set aside.

    Args:
        items: those that the manifest lacks, see `Manifest.choose_missing`.
        workers: not started yet; stopped when this returns, normally or by an exception.
        manifest: entered.
        watcher: told what happens.
        max_tries: how often an item is handed out before it is set aside, and how often in a row a worker may
            die before it was given anything.
        backoff: waiting times after failures; None = 1 s, doubled each time, 60 s at most.

    Raises:
        ValueError: the job can never be loaded, or workers have different versions of what makes videos.
        OSError: the disk is full or cannot be written (what is finished stays so), or no worker stays alive.
    """
    batch = _Batch(items, workers, manifest, watcher, max_tries, backoff or Backoff())
    try:
        batch.run()
    except OSError as error:
        if error.errno in DISK_FULL:
            raise _disk_full(manifest, batch.num_left, str(error)) from error
        raise
    finally:
        workers.stop()


class _Batch:
    def __init__(
        self,
        items: Sequence[Item],
        workers: Workers,
        manifest: Manifest,
        watcher: Watcher,
        max_tries: int,
        backoff: Backoff,
    ) -> None:
        self._queue = Queue(items, max_tries, backoff)
        self._seats = [_Seat() for _ in range(workers.num)]
        self._workers = workers
        self._manifest = manifest
        self._watcher = watcher
        self._max_tries = max_tries
        self._backoff = backoff
        self._versions: tuple[str, ...] = ()

    @property
    def num_left(self) -> int:
        return self._queue.num_left

    def run(self) -> None:
        while self._queue.num_left:
            now = time.monotonic()
            self._start_workers(now)
            self._hand_out(now)
            for worker, event in self._workers.wait(self._time_to_wait(now)):
                self._handle(worker, event)

    def _start_workers(self, now: float) -> None:
        for worker in self._wanted_workers():
            seat = self._seats[worker]
            if seat.starts_at <= now:
                seat.state = "starting"
                self._workers.start(worker)

    def _wanted_workers(self) -> list[int]:
        """Absent workers that there is something to do for."""
        num_free = sum(seat.state in ("starting", "idle") for seat in self._seats)
        absent = [worker for worker, seat in enumerate(self._seats) if seat.state == "absent"]
        absent.sort(key=lambda worker: self._seats[worker].starts_at)
        return absent[: max(self._queue.num_waiting - num_free, 0)]

    def _hand_out(self, now: float) -> None:
        for worker, seat in enumerate(self._seats):
            if seat.state == "idle" and (item := self._queue.take(worker, now)) is not None:
                seat.state, seat.item, seat.num_false_starts = "working", item, 0
                self._workers.submit(worker, item)

    def _time_to_wait(self, now: float) -> float | None:
        """Seconds until something can be done without news from a worker; None = only news help."""
        times = [self._seats[worker].starts_at for worker in self._wanted_workers()]
        if any(seat.state == "idle" for seat in self._seats):
            times += [due for due in [self._queue.next_due()] if due is not None]
        return max(min(times) - now, 0.0) if times else None

    def _handle(self, worker: int, event: Event) -> None:
        seat = self._seats[worker]
        match event:
            case Ready(name, versions):
                self._check_versions(name, versions)
                seat.state, seat.name = "idle", name
            case Made(product):
                item = self._release(seat)
                record = self._manifest.add(item, product, seat.name, self._queue.count_tries(item))
                self._queue.finish(item)
                seat.num_losses = 0
                self._watcher.on_finished(record)
            case Failed(error, "disk full"):
                raise _disk_full(self._manifest, self.num_left, f"worker {seat.name}: {error}")
            case Failed(error, "input") if seat.item is not None:
                item = self._release(seat)
                self._queue.finish(item)
                self._set_aside(item, error)
            case Failed(error, "input"):
                raise ValueError(error)
            case Failed(reason, _) | Lost(reason):
                self._lose(worker, reason)

    def _check_versions(self, name: str, versions: tuple[str, ...]) -> None:
        self._versions = self._versions or versions
        if versions != self._versions:
            raise ValueError(
                f"workers: {name} has {', '.join(versions)}, another {', '.join(self._versions)}; videos of "
                "a batch come from the same versions"
            )

    def _release(self, seat: _Seat) -> Item:
        assert seat.item is not None
        item, seat.item, seat.state = seat.item, None, "idle"
        return item

    def _lose(self, worker: int, reason: str) -> None:
        """The worker is dead, or not to be trusted any more: another will sit there, after a while."""
        now = time.monotonic()
        seat = self._seats[worker]
        item, seat.item, seat.state = seat.item, None, "absent"
        seat.num_losses += 1
        seat.starts_at = now + self._backoff.delay(seat.num_losses)
        self._workers.end(worker)
        self._queue.forget(worker)
        if item is None:
            self._count_false_start(worker, reason)
        elif self._queue.retry(item, now):
            self._watcher.on_retry(item, reason)
        else:
            self._set_aside(item, reason)

    def _count_false_start(self, worker: int, reason: str) -> None:
        seat = self._seats[worker]
        seat.num_false_starts += 1
        self._watcher.on_loss(worker, reason)
        if seat.num_false_starts >= self._max_tries:
            seat.state = "closed"
        if all(seat.state == "closed" for seat in self._seats):
            raise ChildProcessError(
                f"workers: each died {self._max_tries} times before it could begin, at last: {reason}; fewer "
                "workers need less memory"
            )

    def _set_aside(self, item: Item, error: str) -> None:
        self._manifest.set_aside({**asdict(item), "tries": self._queue.count_tries(item)}, error)
        self._watcher.on_set_aside(item, error)


def _disk_full(manifest: Manifest, num_left: int, reason: str) -> OSError:
    return OSError(
        f"disk full ({reason}): {len(manifest.records)} items in {manifest.folder} are finished and whole, "
        f"{num_left} are not; make room and run the same command again"
    )
