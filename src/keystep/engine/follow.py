"""Following a scheduler: `set_timesteps` begins a generation, `step` ends an evaluation."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from keystep.engine.restore import replace_attribute
from keystep.engine.target import find_running, has_scheduler, shares

if TYPE_CHECKING:
    from keystep.engine.run import Run


class Follower(Protocol):
    """What a followed scheduler tells its session.

    Attributes:
        target: the pipeline.
        run: the generation under way.
    """

    target: Any
    run: Run | None

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """Its transformers, by attribute name."""
        ...

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


class Tie:
    """What ties a scheduler to the session that follows it.

    A deep copy of the scheduler gets a tie of its own and is followed like the original: SkyReels-V2 gives
    every frame a copy, LTX-2 the audio; a shallow one is a plain scheduler. Whoever steps first after a
    model call ends the evaluation. A copy that another pipeline has is none of these.

    Args:
        scheduler: the one that is tied.
        session: whom an original tells.
        original: of a copy.
    """

    def __init__(self, scheduler: Any, session: Follower | None, original: Tie | None = None) -> None:
        self.followed, self.original = scheduler, original
        self._session = session
        self._apart: Run | None = None  # the generation that a copy has no part in

    def __deepcopy__(self, memo: dict[int, Any]) -> Tie:
        return Tie(copy.deepcopy(self.followed, memo), None, self.original or self)

    @property
    def session(self) -> Follower | None:
        """Who is told; None = nobody any more, also for the copies of an original that was cut."""
        return (self.original or self)._session

    def cut(self) -> None:
        """Tell nobody any more, and take away what stands in front of the scheduler's methods."""
        self._session, self.original = None, None
        attributes = vars(self.followed)
        if isinstance(attributes.get(REDUCE), Reduce):
            del attributes[REDUCE]
        for name in METHODS:
            front = attributes.get(name)
            if isinstance(front, Followed) and front.tie is self:
                attributes[name] = front.method
                if getattr(front.method, "__func__", self) is getattr(type(self.followed), name, None):
                    del attributes[name]  # the class has it

    def at_start(self) -> Follower | None:
        """Who is told that timesteps are set.

        Raises:
            RuntimeError: it is done for another pipeline with the same transformer.
        """
        session, original = self.session, self.original
        if session is None:
            return None
        running = find_running(session.target, self.followed, (original or self).followed)
        if running is None:
            return None if original is not None and self._stays_apart(session) else session
        if running is session.target or shares(running, session.target, session.models):
            return session
        if original is not None and has_scheduler(running, self.followed):
            self.cut()
        elif original is None:
            session.abort()  # its scheduler was taken away from it
        return None

    def _stays_apart(self, session: Follower) -> bool:
        """Whether a copy that no pipeline has begins in the midst of a generation, in which it has no part.

        It may have in the next: LTX-2's copy begins before the original, maybe after a run that broke off.
        """
        run = session.run
        is_under_way = run is not None and (bool(run.trace.rows) or run.thread != threading.get_ident())
        self._apart = run if is_under_way else None
        return is_under_way

    def at_step(self) -> Follower | None:
        """Who is told of a step."""
        session = self.session
        run = None if session is None or self.original is None else session.run
        is_apart = run is not None and (run is self._apart or run.thread != threading.get_ident())
        return None if is_apart else session


class Followed:
    """In front of a method of a scheduler."""

    def __init__(self, method: Callable[..., Any], tie: Tie) -> None:
        functools.update_wrapper(self, method)
        self.method = method
        self.tie = tie

    @property
    def keystep_session(self) -> Follower | None:
        """Who is told; None = nobody any more."""
        return self.tie.session

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the method does, and the session told."""
        raise NotImplementedError

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., Any]:
        method = copy.deepcopy(self.method, memo)
        return method if self.tie.session is None else type(self)(method, copy.deepcopy(self.tie, memo))


class SetTimesteps(Followed):
    """In front of `set_timesteps`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Set the timesteps of a generation that begins."""
        session = self.tie.at_start()
        if session is None:
            return self.method(*args, **kwargs)
        session.abort()
        args, kwargs = session.refine(args, kwargs)
        result = self.method(*args, **kwargs)
        session.expect()
        return result


class Step(Followed):
    """In front of `step`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take the sampler's step; an evaluation ends, or with an exception the generation."""
        session = self.tie.at_step()
        if session is None:
            return self.method(*args, **kwargs)
        try:
            return session.take_step(self.method, args, kwargs)
        except BaseException:
            session.abort()
            raise


class State(dict[str, Any]):
    """Attributes of a followed scheduler, for a copy of it: a shallow one goes without what stands in front
    of the methods, for that belongs to the original; a deep one gets fronts of its own.
    """

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__({name: value for name, value in attributes.items() if name not in FRONTS})
        self._attributes = attributes

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self._attributes, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class Reduce:
    """In front of `__reduce_ex__` of a scheduler, which `copy` asks what to make a copy of."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def __call__(self, protocol: Any) -> Any:
        """What the class says, with a `State`."""
        cls: Any = type(self.scheduler)
        make, arguments, state, *rest = cls.__reduce_ex__(self.scheduler, protocol)
        return make, arguments, State(state) if type(state) is dict else state, *rest

    def __deepcopy__(self, memo: dict[int, Any]) -> Reduce:
        return Reduce(copy.deepcopy(self.scheduler, memo))


METHODS = {"set_timesteps": SetTimesteps, "step": Step}
REDUCE = "__reduce_ex__"
FRONTS = (*METHODS, REDUCE)


def tie_of(scheduler: Any) -> Tie | None:
    """What ties a scheduler to a session, if it is tied."""
    front = getattr(scheduler, "__dict__", {}).get("set_timesteps")  # nobody else stands in front of this one
    return front.tie if isinstance(front, Followed) else None


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
    before = tie_of(scheduler)
    if before is not None and before.original is None and before.session is not None:
        raise ValueError(
            "scheduler: another accelerated pipeline uses the same scheduler object; give this one its own: "
            "pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)"
        )
    if before is not None:
        before.cut()  # a copy of another pipeline's, left from then
    tie = Tie(scheduler, session)
    stack.callback(tie.cut)
    for name, kind in METHODS.items():
        replace_attribute(stack, scheduler, name, kind(getattr(scheduler, name), tie))
    replace_attribute(stack, scheduler, REDUCE, Reduce(scheduler))
