"""Part three: what else may happen: a second video, an exception, two prompts, no guidance, taking it off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from keystep.lab.book import Book
from keystep.lab.contestant import PLAIN_CONTESTANT, ROBUSTNESS, Bench, Contestant
from keystep.lab.measure import Watcher, identify, missing
from keystep.lab.rows import RobustnessRow, describe_error
from keystep.lab.sample import count, generate
from keystep.metrics.loop import read_loop

OK = "ok"
CHECKS = {
    "second video": "the same call after another video gives the same video",
    "after an exception": "a generation that an exception ends half-way leaves nothing in the next one",
    "two prompts": "a batch of two prompts runs",
    "no guidance": "guidance 1, one branch, runs",
    "restored": "taken off again, the plain video is what it was, bit for bit",
}
PER_SAMPLE = ("prompt", "generator")  # arguments that take a list, one for each sample


class Stopped(Exception):
    """Ends a generation half-way."""


def measure_robustness(bench: Bench, contestants: Sequence[Contestant], book: Book, watcher: Watcher) -> None:
    """Add a row to the book for each contestant, the plain pipeline first.

    Args:
        bench: a model, trained or not, with two prompts or more.
        contestants: without the plain one.
        book: what is in it is not measured again.
        watcher: told about every contestant.
    """
    for contestant in missing(book, ROBUSTNESS, bench, (PLAIN_CONTESTANT, *contestants)):
        if watcher.is_over():
            return
        watcher.begin(f"{bench.subject.name}: {contestant.name}")
        who = identify(ROBUSTNESS, bench, contestant)
        try:
            compute, checks = _check(bench, contestant)
            book.add(RobustnessRow(**who, compute=compute, checks=checks))
        except Exception as error:  # whatever a rival raises is its result
            book.add(RobustnessRow(**who, error=describe_error(error)))


def _check(bench: Bench, contestant: Contestant) -> tuple[float, dict[str, str]]:
    pipe, (prompt, other, *_) = bench.pipe, bench.subject.prompts
    num_steps = contestant.count_steps(bench)

    def call(text: str = prompt, seed: int = 0) -> dict[str, Any]:
        return bench.call(text, seed, num_steps)

    plain = count(pipe, bench.call(prompt, 0))
    checks: dict[str, str] = {}
    with contestant.attach(bench):
        first = count(pipe, call())
        generate(pipe, call(other, 1))
        checks["second video"] = _compare(lambda: generate(pipe, call()), first.frames)
    with contestant.attach(bench):
        _stop_half_way(pipe, call(other, 1), num_steps)
        checks["after an exception"] = _compare(lambda: generate(pipe, call()), first.frames)
    with contestant.attach(bench):
        checks["two prompts"] = _compare(lambda: generate(pipe, merge(call(), call(other, 1))))
    with contestant.attach(bench):
        checks["no guidance"] = _compare(lambda: generate(pipe, {**call(), "guidance_scale": 1.0}))
    checks["restored"] = _compare(lambda: generate(pipe, bench.call(prompt, 0)), plain.frames)
    return first.flops / plain.flops, checks


def _stop_half_way(pipe: Any, arguments: Mapping[str, Any], num_steps: int) -> None:
    def stop(num_done: int, num_planned: int) -> None:
        del num_planned
        if num_done > num_steps // 2:
            raise Stopped

    try:
        with read_loop(pipe, on_step=stop):
            pipe(**arguments)
    except Stopped:
        return


def _compare(make: Callable[[], Any], expected: Any = None) -> str:
    """`ok`, or what is wrong with what `make` makes: an error, numbers that are no numbers, a distance."""
    try:
        made = _to_tensor(make())
    except Exception as error:  # whatever a rival raises is its result
        return describe_error(error)
    if not made.isfinite().all():
        return "not finite"
    if expected is None:
        return OK
    wanted = _to_tensor(expected)
    distance = float((made - wanted).norm() / wanted.norm())
    return OK if distance == 0 else f"differs by {distance:.2g}"


def _to_tensor(frames: Any) -> torch.Tensor:
    return (
        frames.float() if isinstance(frames, torch.Tensor) else torch.from_numpy(np.asarray(frames)).float()
    )


def merge(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call for two samples, from those of a call for each."""

    def pair(name: str, first: Any, second: Any) -> Any:
        if first is None:  # said, where the pipeline's own default is another
            return None
        if isinstance(first, torch.Tensor):
            return torch.cat([first, second])
        return [first, second] if name in PER_SAMPLE else first

    return {name: pair(name, value, two[name]) for name, value in one.items()}
