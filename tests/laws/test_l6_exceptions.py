"""L6: an exception in mid-generation leaves nothing behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

import keystep
from tests.laws.instruments import differences, first_blocks, snapshot
from tests.matrix import METHODS, pairs, pipe_of, scale_of
from tests.zoo import ZOO, Zoo

AT = 9  # the evaluation that fails: in the middle of the skipping part
# A failure deep in the model comes after so many steps, as soon as a block is computed that may be skipped.
DEEP = 5


class Breakdown(Exception):
    pass


def in_callback(error: BaseException) -> Callable[..., Any]:
    def callback(pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        if i + 1 == AT:
            raise error
        return {}

    return callback


class FailLate:
    """Forward pre-hook of a module that raises at its first call after so many scheduler steps."""

    def __init__(self, num_steps: int, error: BaseException) -> None:
        self.left, self.error = num_steps, error

    def end_step(self, pipe: Any, i: int, t: Any, values: dict[str, Any]) -> dict[str, Any]:
        self.left -= 1
        return {}

    def __call__(self, module: torch.nn.Module, args: Any) -> None:
        if self.left <= 0:
            raise self.error


def fail(pipe: Any, zoo: Zoo, where: str, error: BaseException, **arguments: Any) -> None:
    """One generation that fails, at its sixth evaluation or later."""
    call: dict[str, Any] = {}
    undo: Callable[[], Any] = lambda: None  # noqa: E731
    if where == "callback":
        call["callback_on_step_end"] = in_callback(error)
    elif where == "model":  # inside a block that every method skips, and runs at times
        late = FailLate(DEEP, error)
        call["callback_on_step_end"] = late.end_step
        transformer = getattr(pipe, "transformer_2", None) or pipe.transformer  # of two experts the late one
        undo = first_blocks(transformer)[2].register_forward_pre_hook(late).remove
    else:
        vars(pipe.scheduler).update(fails_with=error, fails_in=AT)
        undo = lambda: [vars(pipe.scheduler).pop(key) for key in ("fails_with", "fails_in")]  # noqa: E731
    try:
        with pytest.raises(type(error)):
            zoo.sample(pipe, call=call, **arguments)
    finally:
        undo()


def arm(pipe: Any) -> Any:
    """Give the pipeline a scheduler whose step fails in the middle of a run when told to."""
    base = type(pipe.scheduler)

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if hasattr(self, "fails_in"):
            self.fails_in -= 1
            if self.fails_in == 0:
                raise self.fails_with
        return base.step(self, *args, **kwargs)

    pipe.scheduler.__class__ = type(base.__name__, (base,), {"step": step})
    return pipe


ERRORS = {
    "model": torch.OutOfMemoryError("CUDA out of memory (pretended)"),
    "callback": KeyboardInterrupt(),
    "scheduler": Breakdown("scheduler"),
}


@pytest.mark.parametrize(("zoo", "name", "batch", "is_guided"), pairs())
def test_next_call_is_as_if_nothing_had_happened(zoo: Zoo, name: str, batch: int, is_guided: bool) -> None:
    arguments = {"batch": batch, "scale": scale_of(is_guided)}
    pipe = pipe_of(zoo)
    with keystep.accelerate(pipe, METHODS[name]):
        fresh = zoo.sample(pipe, **arguments)
    with keystep.accelerate(pipe, METHODS[name]) as session:
        for where in ("model", "callback"):
            fail(pipe, zoo, where, ERRORS[where], seed=3, **arguments)
            assert not session.trace.is_complete
        assert torch.equal(zoo.sample(pipe, **arguments), fresh)
        assert session.trace.is_complete


@pytest.mark.parametrize("where", ERRORS)
@pytest.mark.parametrize("zoo", [pytest.param(ZOO[i], id=ZOO[i].name) for i in (0, 1, 4, 5)])
def test_leaving_by_an_exception_restores_every_module(zoo: Zoo, where: str) -> None:
    pipe = arm(zoo.build())
    zoo.sample(pipe, steps=4)
    before = snapshot(pipe)
    error = ERRORS[where]
    with pytest.raises(type(error)), keystep.accelerate(pipe, "fastercache"):
        fail(pipe, zoo, where, error)
        raise error
    zoo.sample(pipe, steps=4)
    assert differences(before, snapshot(pipe)) == []


@pytest.mark.parametrize("where", ["model", "callback", "scheduler"])
@pytest.mark.parametrize("name", ["fastercache", "adacache"])
def test_histories_are_freed(name: str, where: str) -> None:
    """Weak references to everything held just before the failure die with the context."""
    zoo, found = ZOO[4], []
    pipe = arm(zoo.build())
    gc.collect()
    with keystep.accelerate(pipe, METHODS[name]) as session:
        original = pipe.scheduler.step

        def watch(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if session.run is not None:
                entries = [e for held in session.run.histories._entries.values() for e in held]
                found.extend(weakref.ref(value) for entry in entries for value in entry.values)
            return result

        pipe.scheduler.step = watch
        fail(pipe, zoo, where, ERRORS[where])
        pipe.scheduler.step = original
        if where == "model":  # raised through the model: freed at once, not only with the context
            gc.collect()
            assert [ref for ref in found if ref() is not None] == []
    gc.collect()
    assert found
    assert [ref for ref in found if ref() is not None] == []


def test_a_failing_attach_leaves_nothing() -> None:
    """An error found while attaching takes back what was attached already."""
    import dataclasses

    from keystep.models.wan import WAN

    pipe = ZOO[4].build()
    ZOO[4].sample(pipe, steps=2)
    before = snapshot(pipe)
    wrong = dataclasses.replace(WAN, exit="no_such_module")
    with pytest.raises(ValueError, match="no_such_module"), keystep.accelerate(pipe, "adacache", spec=wrong):
        pass
    assert differences(before, snapshot(pipe)) == []
    wrong = dataclasses.replace(WAN, residual={"self": "blocks.{}.no_norm"})
    with pytest.raises(ValueError, match="no_norm"):
        keystep.enable(pipe, "adacache", spec=wrong)
    assert differences(before, snapshot(pipe)) == []


def test_an_enable_that_fails_keeps_the_old_settings() -> None:
    zoo = ZOO[4]
    pipe = zoo.build()
    first = keystep.enable(pipe, METHODS["fastercache"])
    fresh = zoo.sample(pipe)
    with pytest.raises(ValueError, match="nothing"):
        keystep.enable(pipe, "nothing")
    with pytest.raises(ValueError, match="kinds"):
        keystep.enable(pipe, keystep.Policy((keystep.Rule(_temporal(), _every2(), _hold()),)))
    assert torch.equal(zoo.sample(pipe), fresh)
    assert len(first.traces) == 2
    keystep.disable(pipe)


def _temporal() -> Any:
    from keystep.what import Attention

    return Attention(("temporal",))


def _every2() -> Any:
    from keystep.when import Every

    return Every(2)


def _hold() -> Any:
    from keystep.how import Hold

    return Hold()
