"""The forecast and correction of `auto` on evaluations that others place: what its own placing is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keystep
from keystep.how import Damped
from keystep.lab.contestant import OURS, Attach, Bench, Contestant, Name
from keystep.lab.sample import generate
from keystep.methods.static import Static
from keystep.models.registry import find_spec
from keystep.policy import Policy, Rule
from keystep.what import Guided
from keystep.when import Controller, Every, Mask

Place = Callable[[Bench], Controller]


def placed_by_others() -> list[Contestant]:
    """`auto` on every k-th evaluation, on static schedules, and where EasyCache computes."""
    families: dict[str, dict[str, Place]] = {
        "auto on every k-th": {f"k={k}": _every(k) for k in (2, 3, 4, 5)},
        "auto on static": {f"compute={share}": _static(share) for share in (0.5, 0.4, 0.33, 0.25)},
        "auto on easycache": {f"threshold={each}": _easycache(each) for each in (0.03, 0.05, 0.1, 0.2, 0.4)},
    }
    return [
        Contestant(Name(OURS, family, setting), _attach(place))
        for family, places in families.items()
        for setting, place in places.items()
    ]


def _attach(place: Place) -> Attach:
    @contextmanager
    def attach(bench: Bench) -> Iterator[None]:
        policy = Policy((Rule(Guided(), place(bench), Damped()),), "placed")
        with keystep.accelerate(bench.pipe, policy):
            yield

    return attach


def _every(period: int) -> Place:
    return lambda bench: Every(period, phase=1, is_last_computed=True)


def _static(share: float) -> Place:
    def place(bench: Bench) -> Controller:
        model = find_spec(bench.pipe.transformer, bench.pipe).name
        (rule,) = Static(compute=share).policy(model, bench.num_steps).rules
        return rule.when

    return place


def _easycache(threshold: float) -> Place:
    """Where EasyCache computes on a development prompt; on its own it needs the model's every output."""

    def place(bench: Bench) -> Controller:
        key = f"easycache {threshold}"
        if key not in bench.notes:
            with keystep.accelerate(bench.pipe, "easycache", threshold=threshold) as session:
                generate(bench.pipe, bench.call(bench.subject.development_prompts[0], 0))
            assert session.trace is not None, "a generation has just ended"
            bench.notes[key] = "".join("s" if row.skipped else "C" for row in session.trace.rows)
        return Mask(bench.notes[key])

    return place
