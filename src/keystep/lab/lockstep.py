"""Two generations timed against each other, a scheduler step of one and a step of the other in turns.

Machines drift: a processor that others use too may be a tenth slower for half a minute, which is as long as a
generation takes. Turns of one step let both sides meet the same weather.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from keystep.engine.target import find_transformers
from keystep.metrics.loop import read_loop, read_seconds


@dataclass(frozen=True)
class Timed:
    """Seconds of one generation, without those in which it was the other's turn.

    Attributes:
        loop_s: of the denoising loop.
        total_s: of the whole call.
        loop_cpu_s: of processor time in the loop, all threads together.
    """

    loop_s: float
    total_s: float
    loop_cpu_s: float


@dataclass(frozen=True)
class Side:
    """One of the two.

    Attributes:
        pipe: of its own, see `twin`.
        arguments: of the call.
    """

    pipe: Any
    arguments: Mapping[str, Any]


def twin(pipe: Any) -> Any:
    """A pipeline with denoisers and a scheduler of its own, which shares all weights with `pipe`."""
    other = copy.copy(pipe)
    for name, module in find_transformers(pipe).items():
        shared = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
        setattr(other, name, copy.deepcopy(module, shared))
    other.scheduler = copy.deepcopy(pipe.scheduler)
    return other


def time_together(first: Side, second: Side, is_second_ahead: bool) -> tuple[Timed, Timed]:
    """Generate both, in turns, each in a thread of its own: the main thread gets its memory from elsewhere.

    Raises:
        Exception: whatever one of them raises; the other is ended then.
    """
    turns = _Turns(int(is_second_ahead))
    results: dict[int, Timed | BaseException] = {}
    num_threads = torch.get_num_threads()

    def run(index: int, side: Side) -> None:
        torch.set_num_threads(num_threads)  # which each thread has for itself
        try:
            results[index] = _take_time(side, lambda: turns.pass_on(index), lambda: turns.await_turn(index))
        except BaseException as error:
            turns.end_all()
            results[index] = error
        finally:
            turns.leave(index)

    sides = enumerate((first, second))
    workers = [threading.Thread(target=run, args=each, daemon=True) for each in sides]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in results.values():
        if isinstance(result, BaseException) and not isinstance(result, _EndedError):
            raise result
    before, after = results[0], results[1]
    assert isinstance(before, Timed), "what ends both is raised above"
    assert isinstance(after, Timed), "likewise"
    return before, after


def _take_time(side: Side, pass_on: Callable[[], None], await_turn: Callable[[], None]) -> Timed:
    waited_s = waited_cpu_s = 0.0
    cpu_s: list[float] = []

    def clock() -> float:
        now = read_seconds()
        cpu_s.append(time.process_time() - waited_cpu_s)
        return now - waited_s

    def end_step(num_done: int, num_planned: int) -> None:
        del num_done, num_planned
        nonlocal waited_s, waited_cpu_s
        begin, begin_cpu = time.perf_counter(), time.process_time()
        pass_on()
        await_turn()
        waited_s += time.perf_counter() - begin
        waited_cpu_s += time.process_time() - begin_cpu

    await_turn()
    begin = time.perf_counter()
    with read_loop(side.pipe, clock, end_step) as loop:
        side.pipe(**side.arguments)
    total_s = time.perf_counter() - begin - waited_s
    return Timed(loop.elapsed, total_s, cpu_s[-1] - cpu_s[0])


class _EndedError(Exception):
    """The other side failed."""


class _Turns:
    """Whose turn it is, 0 or 1; one that has left has no more turns."""

    def __init__(self, first: int) -> None:
        self._changed = threading.Condition()
        self._turn = first
        self._left: set[int] = set()
        self._is_over = False

    def pass_on(self, index: int) -> None:
        """The other's turn, if it is still there."""
        with self._changed:
            self._turn = index if 1 - index in self._left else 1 - index
            self._changed.notify_all()

    def await_turn(self, index: int) -> None:
        """Return when it is this one's turn.

        Raises:
            _EndedError: the other one failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turn == index or self._is_over)
        if self._is_over:
            raise _EndedError

    def leave(self, index: int) -> None:
        """No more turns for this one."""
        with self._changed:
            self._left.add(index)
            self._turn = 1 - index
            self._changed.notify_all()

    def end_all(self) -> None:
        """Both stop at their next step."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
