"""WHEN to recompute: the contract of controllers.

A controller is a frozen description; its state is a value that is passed in and returned, so that one
controller can serve many generations at once. Decisions are plain Python on the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from keystep.when.signal import Signal

Plan = Literal["compute", "skip", "ask"]


class Controller(Protocol):
    """Decides, evaluation by evaluation, whether to compute or to skip.

    Evaluations are 1-based; `num_evaluations` (N) is how many this generation will have.
    """

    @property
    def asks(self) -> bool:
        """Whether `plan` may say "ask"; then the signals are measured before the site, every time."""
        ...

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What has to be measured; empty for schedules."""
        ...

    @property
    def needs_time(self) -> bool:
        """Whether `begin` looks at the timesteps."""
        ...

    @property
    def needs_noise(self) -> bool:
        """Whether `begin` is told the share of noise at each evaluation, 0 to 1, in place of timesteps."""
        ...

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> Any:
        """State at the begin of a generation; `times` are the scheduler's timesteps (or the shares of noise,
        see `needs_noise`), one an evaluation.
        """
        ...

    def plan(self, state: Any, evaluation: int) -> Plan:
        """Before the forward: compute, skip, or ask at the probe in its middle."""
        ...

    def decide(self, state: Any, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """At the probe, only after `plan` said "ask": compute or skip."""
        ...

    def update(self, state: Any, evaluation: int, is_computed: bool, measured: Mapping[str, float]) -> Any:
        """After the evaluation: the next state. `measured` is empty where nothing could be measured."""
        ...


class Schedule:
    """Base of controllers that measure nothing: the decision is a function of the evaluation and N alone."""

    asks = False
    needs_time = False
    needs_noise = False

    @property
    def signals(self) -> tuple[Signal, ...]:
        """Nothing is measured."""
        return ()

    def begin(self, num_evaluations: int, times: Sequence[float] = ()) -> Any:
        """The state is N."""
        del times
        return num_evaluations

    def decide(self, state: Any, evaluation: int, measured: Mapping[str, float]) -> Plan:
        """Never asked."""
        raise AssertionError("a schedule decides before the forward")

    def update(self, state: Any, evaluation: int, is_computed: bool, measured: Mapping[str, float]) -> Any:
        """Nothing changes."""
        del evaluation, is_computed, measured
        return state
