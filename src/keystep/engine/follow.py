"""Following a scheduler: `set_timesteps` begins a generation, `step` ends an evaluation."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

from keystep.engine.restore import replace_attribute


class Follower(Protocol):
    """What a followed scheduler tells its session."""

    def abort(self) -> None:
        """Forget the generation under way."""
        ...

    def refine(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of `set_timesteps` for as many steps as are wanted."""
        ...

    def expect(self) -> None:
        """A generation begins with the next model call."""
        ...

    def take_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Take the sampler's step, and end an evaluation."""
        ...


class Followed:
    """In front of a method of a scheduler.

    A deep copy of the scheduler has methods of its own and is followed like the original: SkyReels-V2 gives
    every frame a copy, LTX-2 the audio. Whoever steps first after a model call ends the evaluation.
    """

    def __init__(self, method: Callable[..., Any], session: Follower) -> None:
        functools.update_wrapper(self, method)
        self.method = method
        self.keystep_session = session

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method does, and the session told."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Followed:
        return type(self)(copy.deepcopy(self.method, memo), self.keystep_session)


class SetTimesteps(Followed):
    """In front of `set_timesteps`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Set the timesteps of a generation that begins."""
        self.keystep_session.abort()
        args, kwargs = self.keystep_session.refine(args, kwargs)
        result = self.method(*args, **kwargs)
        self.keystep_session.expect()
        return result


class Step(Followed):
    """In front of `step`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take the sampler's step; an evaluation ends, or with an exception the generation."""
        try:
            return self.keystep_session.take_step(self.method, args, kwargs)
        except BaseException:
            self.keystep_session.abort()
            raise


METHODS = {"set_timesteps": SetTimesteps, "step": Step}


def follow(stack: ExitStack, scheduler: Any, session: Follower) -> None:
    """Let a scheduler tell a session what it does, until the stack closes.

    Raises:
        ValueError: it lacks one of the two methods, or tells another session already.
    """
    for name in METHODS:
        if not callable(getattr(scheduler, name, None)):
            raise ValueError(
                f"scheduler: {type(scheduler).__name__} has no {name}(), so its steps cannot be followed; "
                "accelerate the transformer and call begin() and step() of the session yourself"
            )
    if isinstance(scheduler.step, Step):
        raise ValueError(
            "scheduler: another accelerated pipeline uses the same scheduler object; give this one its own: "
            "pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)"
        )
    for name, kind in METHODS.items():
        replace_attribute(stack, scheduler, name, kind(getattr(scheduler, name), session))
