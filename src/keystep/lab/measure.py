"""What the three parts of the bench share: rows from contestants, failures kept, bytes and steps compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import keystep
from keystep.how import Hold
from keystep.lab.book import Book
from keystep.lab.contestant import Bench, Contestant
from keystep.lab.rows import Key
from keystep.lab.sample import Counted, generate
from keystep.policy import Policy, Rule
from keystep.what import Span
from keystep.when import Always

KEY_STEP_SHARE = 0.99  # a key step costs at least so much of the dearest plain one


class Watcher(Protocol):
    """Who wants to know how far a part is, and may end it early."""

    def begin(self, label: str) -> None:
        """A measurement begins; `label` says which."""

    def is_over(self) -> bool:
        """Whether no further measurement may begin."""
        ...


def identify(part: str, bench: Bench, contestant: Contestant) -> dict[str, Any]:
    """The fields of a row that say who was measured on what."""
    name = contestant.name
    return {
        "part": part,
        "model": bench.subject.name,
        "source": name.source,
        "method": name.method,
        "setting": name.setting,
        "is_default": contestant.is_default,
    }


def missing(
    book: Book, part: str, bench: Bench, contestants: Iterable[Contestant], item: tuple[str, int] = ("", 0)
) -> list[Contestant]:
    """The contestants that have no row of this part, model and item yet."""
    return [
        contestant
        for contestant in contestants
        if not book.has(Key(part, bench.subject.name, contestant.name, *item))
    ]


def count_key_steps(counted: Counted, plain: Counted) -> int:
    """Evaluations that cost what a plain one does."""
    return sum(flops >= KEY_STEP_SHARE * max(plain.step_flops) for flops in counted.step_flops)


def count_held(counted: Counted, plain: Counted) -> int:
    """Bytes held beyond what the plain pipeline holds."""
    return max(0, counted.held_bytes - plain.held_bytes)


def measure_hidden_state(bench: Bench) -> int:
    """Bytes of one hidden state, all guidance branches of a call; the unit in which caches are given."""
    never = Policy((Rule(Span(), Always(), Hold()),), "never")
    with keystep.accelerate(bench.pipe, never) as session:
        generate(bench.pipe, bench.call(bench.subject.development_prompts[0], 0, 1))
    assert session.trace is not None, "a generation has just ended"
    return session.trace.hidden_state_bytes


def unbroken(book: Book, part: str, bench: Bench, contestants: Sequence[Contestant]) -> list[Contestant]:
    """Those that have not failed on this model yet: one failure is enough."""
    model = bench.subject.name
    failed = {row.contestant for row in book.rows if row.error and (row.part, row.model) == (part, model)}
    return [contestant for contestant in contestants if contestant.name not in failed]
