"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from keystep.batch.item import Item
from keystep.batch.workers import Event, Job, Lost, Worker

EXIT_S = 2.0  # for a process to leave by itself, so that it clears up, and one learns how it ended


class _Peer(NamedTuple):
    process: BaseProcess
    connection: Any  # a `Connection`, or what stands for it on other systems


class LocalWorkers:
    """Processes, spawned, each with an environment of its own.

    Args:
        job: what they do.
        environments: variables for each worker, set before the job is loaded.
    """

    def __init__(self, job: Job, environments: Sequence[Mapping[str, str]]) -> None:
        self.num = len(environments)
        self._job = job
        self._environments = environments
        self._peers: dict[int, _Peer] = {}
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork

    def start(self, worker: int) -> None:
        """As `Workers.start`."""
        here, there = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(there, self._job, dict(self._environments[worker])), daemon=True
        )
        resource_tracker.ensure_running()  # comes with the first process, and would lift the mask
        with _without_interrupts():
            process.start()
        there.close()  # else the end of the process would not be the end of the connection
        self._peers[worker] = _Peer(process, here)

    def end(self, worker: int) -> None:
        """As `Workers.end`."""
        self._end([worker])

    def submit(self, worker: int, item: Item) -> None:
        """As `Workers.submit`."""
        with suppress(OSError):  # it died just now; `wait` says so
            self._peers[worker].connection.send(item)

    def wait(self, timeout_s: float | None) -> list[tuple[int, Event]]:
        """As `Workers.wait`."""
        ready = wait([peer.connection for peer in self._peers.values()], timeout_s)
        return [(worker, _receive(peer)) for worker, peer in self._peers.items() if peer.connection in ready]

    def stop(self) -> None:
        """As `Workers.stop`."""
        self._end(list(self._peers))

    def _end(self, workers: Sequence[int]) -> None:
        peers = [self._peers.pop(worker) for worker in workers]
        for peer in peers:
            peer.connection.close()  # one that waits for an item leaves now
        deadline = time.monotonic() + EXIT_S
        for peer in peers:
            peer.process.join(max(deadline - time.monotonic(), 0.0))
            peer.process.kill()
            peer.process.join()


def _receive(peer: _Peer) -> Event:
    try:
        return peer.connection.recv()
    except (EOFError, OSError):  # the latter when it died in the middle of a message
        peer.process.join(EXIT_S)
        return Lost(_describe_end(peer.process.exitcode))


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal. Children inherit the mask, and leave when told to."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_end(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"the worker was killed by {signal.Signals(-exit_code).name}"
    return f"the worker ended with status {exit_code}"


def _work(connection: Any, job: Job, environment: Mapping[str, str]) -> None:
    """The life of a worker process."""
    os.environ.update(environment)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    worker = Worker(job)
    with suppress(EOFError, OSError):  # nobody wants it any more
        connection.send(worker.load())
        while True:
            connection.send(worker.make(connection.recv()))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # also in the middle of a video, which nobody would fetch
