"""Which item a worker gets next. Decisions only: nothing here waits, reads a clock or touches a disk."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from keystep.batch.item import Item
from keystep.errors import require

MAX_TRIES = 3

Shape = tuple[Any, ...]


@dataclass(frozen=True)
class Backoff:
    """How long to wait after failures in a row: `base_s`, then twice as long each time, `cap_s` at most."""

    base_s: float = 1.0
    cap_s: float = 60.0

    def delay(self, num_failures: int) -> float:
        """Seconds to wait after so many failures in a row, 1 or more."""
        doublings = min(num_failures - 1, 30)  # 2 to the power of thousands is no float any more
        return min(self.base_s * 2.0**doublings, self.cap_s)


class Queue:
    """Items to be made, by shape.

    Args:
        items: in the order in which they are preferred.
        max_tries: how often an item is handed out at most.
        backoff: how long a failed item rests.

    Raises:
        ValueError: less than one try.
    """

    def __init__(
        self, items: Iterable[Item], max_tries: int = MAX_TRIES, backoff: Backoff | None = None
    ) -> None:
        require(max_tries >= 1, "tries", max_tries, "1 or more")
        self._max_tries = max_tries
        self._backoff = backoff or Backoff()
        self._waiting: dict[Shape, deque[Item]] = {}
        self._resting: list[tuple[float, Item]] = []  # until when
        self._working: dict[str, Item] = {}
        self._tries: Counter[str] = Counter()
        self._shapes: dict[int, Shape] = {}  # worker -> what it is set up for
        for item in items:
            self._waiting.setdefault(item.shape, deque()).append(item)

    @property
    def num_waiting(self) -> int:
        """Items that nobody works on."""
        return sum(map(len, self._waiting.values())) + len(self._resting)

    @property
    def num_left(self) -> int:
        """Items that are neither finished nor given up."""
        return self.num_waiting + len(self._working)

    def count_tries(self, item: Item) -> int:
        """How often the item was handed out."""
        return self._tries[item.id]

    def take(self, worker: int, now: float) -> Item | None:
        """Hand out an item: of the shape that `worker` had last, else of the one with most items for each
        worker that is at it; None = nothing is due."""
        self._wake(now)
        if not self._waiting:
            return None
        shape = self._choose_shape(worker)
        item = self._waiting[shape].popleft()
        if not self._waiting[shape]:
            del self._waiting[shape]
        self._shapes[worker] = shape
        self._working[item.id] = item
        self._tries[item.id] += 1
        return item

    def finish(self, item: Item) -> None:
        """The item is made, or is of no use."""
        del self._working[item.id]

    def retry(self, item: Item, now: float) -> bool:
        """The item failed: it rests, then it is handed out again; False = its tries are used up."""
        del self._working[item.id]
        num_tries = self._tries[item.id]
        if num_tries >= self._max_tries:
            return False
        self._resting.append((now + self._backoff.delay(num_tries), item))
        return True

    def forget(self, worker: int) -> None:
        """The worker is gone, and with it what it was set up for."""
        self._shapes.pop(worker, None)

    def next_due(self) -> float | None:
        """When the first resting item is due; None = none rests."""
        return min((until for until, _ in self._resting), default=None)

    def _wake(self, now: float) -> None:
        for until, item in self._resting:
            if until <= now:  # in front: what may be poison should be known early
                self._waiting.setdefault(item.shape, deque()).appendleft(item)
        self._resting = [(until, item) for until, item in self._resting if until > now]

    def _choose_shape(self, worker: int) -> Shape:
        if self._shapes.get(worker) in self._waiting:
            return self._shapes[worker]
        num_workers = Counter(self._shapes.values())
        return max(self._waiting, key=lambda shape: len(self._waiting[shape]) / (1 + num_workers[shape]))
