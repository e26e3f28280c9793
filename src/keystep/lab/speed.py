"""Part two: how much of the skipped work becomes saved time, what it costs to stand ready, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from keystep.lab.book import Book
from keystep.lab.contestant import SPEED, Bench, Contestant
from keystep.lab.lockstep import Side, time_together, twin
from keystep.lab.measure import (
    Watcher,
    count_held,
    count_key_steps,
    identify,
    measure_hidden_state,
    missing,
)
from keystep.lab.rows import SpeedRow, describe_error
from keystep.lab.sample import Counted, count
from keystep.metrics.outcome import TimedPair

SEED = 0


def measure_speed(
    bench: Bench, contestants: Sequence[Contestant], num_pairs: int, book: Book, watcher: Watcher
) -> None:
    """Add a row to the book for each contestant: counted once, then timed in turns with the plain pipeline.

    Args:
        bench: a model, trained or not.
        contestants: without the plain one.
        num_pairs: timed pairs of each.
        book: what is in it is not measured again.
        watcher: told about every contestant.
    """
    todo = missing(book, SPEED, bench, contestants)
    if not todo:
        return
    watcher.begin(f"{bench.subject.name}: plain")
    plain = count(bench.pipe, bench.call(bench.subject.prompts[0], SEED))
    hidden_state_bytes = measure_hidden_state(bench)
    plain_pipe = twin(bench.pipe)
    for contestant in todo:
        if watcher.is_over():
            return
        watcher.begin(f"{bench.subject.name}: {contestant.name}")
        try:
            row = _measure(bench, plain_pipe, contestant, num_pairs, plain, hidden_state_bytes)
        except Exception as error:  # whatever a rival raises is its result
            row = SpeedRow(**identify(SPEED, bench, contestant), error=describe_error(error))
        book.add(row)


def _measure(
    bench: Bench,
    plain_pipe: Any,
    contestant: Contestant,
    num_pairs: int,
    plain: Counted,
    hidden_state_bytes: int,
) -> SpeedRow:
    call = bench.subject.prompts[0], SEED, contestant.count_steps(bench)
    with contestant.attach(bench):
        made = count(bench.pipe, bench.call(*call))  # which warms up too
    pairs, cpu_pairs = [], []
    for index in range(num_pairs):
        with contestant.attach(bench):
            own, other = Side(bench.pipe, bench.call(*call)), Side(plain_pipe, bench.call(*call[:2]))
            after, before = time_together(own, other, is_second_ahead=index % 2 == 0)
        pairs.append(TimedPair(before.loop_s, after.loop_s, before.total_s, after.total_s))
        cpu_pairs.append((before.loop_cpu_s, after.loop_cpu_s))
    return SpeedRow(
        **identify(SPEED, bench, contestant),
        pairs=tuple(pairs),
        cpu_pairs=tuple(cpu_pairs),
        flops=made.flops,
        plain_flops=plain.flops,
        key_steps=count_key_steps(made, plain),
        num_steps=len(made.step_flops),
        held_bytes=count_held(made, plain),
        hidden_state_bytes=hidden_state_bytes,
        plain_peak_bytes=plain.peak_bytes,
        peak_bytes=made.peak_bytes,
        is_idle=made.flops == plain.flops and is_same(made.frames, plain.frames),
        num_plain_steps=len(plain.step_flops),
        uncounted=made.uncounted,
    )


def is_same(frames: object, others: object) -> bool:
    """Whether two results are equal bit for bit."""
    return bool(torch.equal(torch.as_tensor(frames), torch.as_tensor(others)))
