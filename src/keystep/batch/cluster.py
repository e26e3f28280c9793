"""Workers that are actors of a Ray cluster.

Actors are not restarted by Ray but replaced by the batch: after a restart Ray answers "unavailable" again and
again, and does not say whether the process that answers next is the old one. Without restarts a dead actor is
reported as dead, once. "Unavailable" then means that the network or the cluster was slow: the same is asked
again after a while, and the worker knows it if it has answered already.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from keystep.batch.item import Item
from keystep.batch.queue import Backoff
from keystep.batch.workers import Event, Job, Lost, Report, Worker

PACKAGE = "ray"
LOCAL = "local"  # an address: a cluster of this machine's own, for as long as the batch runs


class RayWorkers:
    """Actors, one accelerator or one core each.

    Args:
        job: what they do; its class must be importable on every machine of the cluster.
        num: how many; None = one for each accelerator, or core, of the cluster.
        address: of the cluster's head, `auto`, or `local`.
        needs: what an actor occupies.
        backoff: how long to wait before an unavailable actor is asked again.

    Raises:
        ValueError: ray is not installed, or the cluster has not what one worker needs.
        OSError: nothing answers at the address.
    """

    def __init__(
        self,
        job: Job,
        num: int | None,
        address: str,
        needs: Literal["CPU", "GPU"] = "CPU",
        backoff: Backoff | None = None,
    ) -> None:
        self._ray = _connect(address, num)
        there = int(self._ray.cluster_resources().get(needs, 0))
        if there < (num or 1):
            self._ray.shutdown()
            raise ValueError(f"--workers: given {num or 1}, the cluster at {address} has {there} {needs}")
        self.num = num or there
        self._job = job
        self._backoff = backoff or Backoff()
        self._actor = self._ray.remote(Worker).options(
            num_cpus=1, num_gpus=int(needs == "GPU"), max_restarts=0, max_task_retries=0
        )
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, Item | None] = {}  # None = to load
        self._answers: dict[Any, int] = {}  # what will hold the answer -> of which worker
        self._silences: dict[int, int] = {}  # how often in a row it was unavailable
        self._asks_at: dict[int, float] = {}

    def start(self, worker: int) -> None:
        """As `Workers.start`."""
        self._actors[worker] = self._actor.remote(self._job)
        self._silences[worker] = 0
        self._ask(worker, None)

    def submit(self, worker: int, item: Item) -> None:
        """As `Workers.submit`."""
        self._ask(worker, item)

    def end(self, worker: int) -> None:
        """As `Workers.end`."""
        self._asks_at.pop(worker, None)
        self._answers = {answer: of for answer, of in self._answers.items() if of != worker}
        self._ray.kill(self._actors.pop(worker))

    def wait(self, timeout_s: float | None) -> list[tuple[int, Event]]:
        """As `Workers.wait`."""
        self._ask_again()
        now = time.monotonic()
        waits = [at - now for at in self._asks_at.values()] + ([] if timeout_s is None else [timeout_s])
        timeout_s = max(min(waits), 0.0) if waits else None
        if not self._answers:
            time.sleep(timeout_s or 0.0)
            return []
        ready, _ = self._ray.wait(list(self._answers), num_returns=1, timeout=timeout_s)
        events = [(worker, self._receive(answer)) for answer in ready for worker in [self._answers[answer]]]
        return [(worker, event) for worker, event in events if event is not None]

    def stop(self) -> None:
        """As `Workers.stop`."""
        for worker in list(self._actors):
            self.end(worker)
        self._ray.shutdown()

    def _ask(self, worker: int, item: Item | None) -> None:
        actor = self._actors[worker]
        self._asked[worker] = item
        answer = actor.load.remote() if item is None else actor.make.remote(item)
        self._answers[answer] = worker

    def _ask_again(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker, at in self._asks_at.items() if at <= now]:
            del self._asks_at[worker]
            self._ask(worker, self._asked[worker])

    def _receive(self, answer: Any) -> Event | None:
        """What became of a question; None = nothing yet, it will be asked again."""
        worker = self._answers.pop(answer)
        try:
            report: Report = self._ray.get(answer)
        except self._ray.exceptions.ActorUnavailableError:
            self._silences[worker] += 1
            self._asks_at[worker] = time.monotonic() + self._backoff.delay(self._silences[worker])
            return None
        except self._ray.exceptions.RayError as error:
            return Lost(_describe(error))
        self._silences[worker] = 0
        return report


def _connect(address: str, num: int | None) -> Any:
    if find_spec(PACKAGE) is None:
        raise ValueError("--ray: ray is not installed: pip install '.[ray]' in keystep's sources")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to be counted
    ray: Any = import_module(PACKAGE)
    own = {"num_cpus": num, "include_dashboard": False} if address == LOCAL else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConnectionError(f"--ray: nothing answers at {address!r}: {error}") from None
    return ray


def _describe(error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"
