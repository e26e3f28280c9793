"""A session: a policy attached to a pipeline. It outlives generations; each generation gets a `Run` of its
own.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from torch import nn

from keystep.engine.agreement import agreement_of
from keystep.engine.attach import CALL, attach_model
from keystep.engine.call import Call
from keystep.engine.checks import (
    check_entry,
    check_free,
    check_not_compiled,
    check_seats,
    check_sites,
    check_spec,
)
from keystep.engine.clock import (
    check_levels,
    first_index,
    is_guided,
    refine_steps,
    shown_guidance,
    timesteps_of,
)
from keystep.engine.compiled import budget_for
from keystep.engine.follow import follow, tie_of
from keystep.engine.guided import GuidedOutput
from keystep.engine.guided_seat import GuidedSeat
from keystep.engine.method import Method, check_outline, outline_of, policy_for
from keystep.engine.run import Run
from keystep.engine.seats import ModelSeat
from keystep.engine.storage import Storage
from keystep.engine.summary import summarize
from keystep.engine.target import check_same, find_transformers
from keystep.engine.trace import Trace
from keystep.errors import require
from keystep.models.spec import ModelSpec
from keystep.solver import levels_of, shares_of
from keystep.what import Guidance, Guided

NUM_TRACES = 64  # traces kept for long-lived pipelines


class KeystepWarning(UserWarning):
    """Something keystep was asked for did not happen, and the result is right all the same."""


class Session:
    """A policy attached to a pipeline or a bare transformer.

    Attributes:
        traces: what the last generations did, oldest first.
        entry: the settings with which diffusers' `enable_cache` let it in; None = it came by itself.
        is_scoped: whether it is attached for the length of a `with` block.
    """

    def __init__(
        self,
        target: Any,
        method: Method,
        spec: ModelSpec,
        guidance: str | Guidance | None = None,
        storage: Storage | None = None,
    ) -> None:
        is_storage = storage is None or isinstance(storage, Storage)
        require(is_storage, "storage", storage, 'None, or e.g. keystep.Storage(device="cpu")')
        self.models = find_transformers(target)
        self.spec = spec
        self.guidance = Guidance.parse(guidance or self.spec.guidance)
        self.method = method
        self.storage = storage or Storage()
        self.outline = outline_of(method, spec, self.models)
        for name, module in self.models.items():
            if not self.is_whole:
                if not isinstance(vars(module).get(CALL), (ModelSeat, GuidedSeat)):
                    check_not_compiled(name, module)
                check_spec(spec, module)
        self.traces: deque[Trace] = deque(maxlen=NUM_TRACES)
        self.run: Run | None = None
        self.guided: GuidedOutput | None = None  # where the policy is about the guided output
        self.call: Call | None = None
        self.target = target
        self.entry: object = None
        self.is_scoped = False
        self._scheduler = None if isinstance(target, nn.Module) else getattr(target, "scheduler", None)
        self._is_due = False  # set_timesteps was seen, the first evaluation not yet
        self._has_warned_beyond = False
        self.graph_budget: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._stack = ExitStack()

    @property
    def is_whole(self) -> bool:
        """Whether the policy is about the guided output, and about nothing inside the model."""
        return isinstance(self.outline.rules[0].what, Guided)

    # ---------------------------------------------------------------- attaching

    def attach(self) -> None:
        """Check everything, then put seats and taps in place; on any error nothing stays attached."""
        for name, module in self.models.items():
            check_free(name, module, self.entry)
            if (agreement := agreement_of(module)) is not None:
                agreement.check_policy(self.outline)
            if not self.is_whole:
                check_not_compiled(name, module)
                check_sites(self.outline, self.spec, module, self.guidance)
        if self.is_whole and self._scheduler is None:
            raise ValueError(
                "pipe: given a bare transformer, but the guided output is made outside of it; give the "
                "pipeline"
            )
        if not self.is_whole:
            self.graph_budget = budget_for(
                block
                for module in self.models.values()
                for name in self.spec.blocks
                for block in module.get_submodule(name).children()
            )
        with ExitStack() as stack:
            if self._scheduler is not None:
                follow(stack, self._scheduler, self)
            for name, module in self.models.items():
                attach_model(stack, self, name, module, self.spec, self.outline)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Drop a generation under way and restore the pipeline."""
        self.abort()
        self._stack.close()

    # ---------------------------------------------------------------- the clock

    def begin(
        self,
        num_evaluations: int,
        guided: bool = True,
        times: Sequence[float] = (),
        noises: Sequence[float] = (),
    ) -> None:
        """Begin a generation by hand, where no scheduler does it.

        Args:
            num_evaluations: N, model evaluations there will be (all branches of one noise level are one
                evaluation).
            guided: whether classifier-free guidance is on.
            times: the timestep of each evaluation; needed by predictors that weigh by spacing.
            noises: share of noise in the latent at each evaluation, 0 to 1; needed by SeaCache.
        """
        if num_evaluations < 1:
            raise ValueError(f"num_evaluations: given {num_evaluations}, allowed: 1 or more")
        self._begin(num_evaluations, guided, times, noises)

    def _begin(
        self, num_evaluations: int, guided: bool | None, times: Sequence[float], noises: Sequence[float]
    ) -> None:
        self.abort()
        check_entry(self.models, self.entry)
        check_seats(self.models, self.entry)
        policy = policy_for(self.method, num_evaluations, self.spec, self.models)
        check_outline(self.method, self.outline, policy)
        shown, told = guided is not False, guided
        if self.is_whole:  # branches do not matter where all are skipped together, nor need they be known
            shown, told = guided, False
        trace = Trace(policy.name, self.spec.name, num_evaluations, shown)
        further = self.spec.further_calls
        self.run = Run(
            policy, self.guidance, told, num_evaluations, times, trace, self.storage, further, noises
        )
        self.guided = GuidedOutput(self.run, self.spec) if self.is_whole else None
        self.traces.append(trace)
        self._is_due, self._has_warned_beyond = False, False

    def refine(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """More steps than asked for, where the method wants them."""
        return refine_steps(args, kwargs, getattr(self.method, "refined", 1))

    def expect(self) -> None:
        """A generation begins with the next model call, its timesteps read from the scheduler.

        Raises:
            RuntimeError: a transformer of the pipeline was replaced.
        """
        check_same(self.target, self.models)
        self._is_due = True

    def take_step(self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The step of the sampler, on a forecast where the policy has one; it ends an evaluation."""
        if self.guided is None:
            result, is_last = step(*args, **kwargs), True
        else:
            result, is_last = self.guided.take_step(step, args, kwargs)
        if is_last:
            self.step()
        return result

    def step(self) -> None:
        """End an evaluation, as `scheduler.step` does for a pipeline; nothing without a model call before."""
        if self.run is None or self.run.plan is None:
            return
        try:
            self.run.close_evaluation()
        except BaseException:
            self.abort()
            raise
        if self.run.is_over:
            self._finish(self.run)

    def _finish(self, run: Run) -> None:
        run.trace.is_complete = True
        run.recorder.read_rest()
        run.histories.clear()
        self.run, self.guided = None, None
        if not any(row.skipped for row in run.trace.rows) and run.may_skip:
            run.trace.notes.append(
                f"nothing was skipped in {run.num_evaluations} evaluations: the video is the plain one"
            )
            warnings.warn(f"{run.trace.method}: {'; '.join(run.trace.notes)}", KeystepWarning, stacklevel=2)

    def abort(self) -> None:
        """Forget a generation that did not come to its end; its trace stays, marked incomplete."""
        self.call, self.guided = None, None
        if self.run is not None:
            self.run.histories.clear()
            self.run = None

    def run_for_call(self, arguments: Mapping[str, Any]) -> Run | None:
        """The run a model call belongs to; None for calls after the last planned evaluation.

        Raises:
            RuntimeError: no generation has begun, the scheduler was replaced, or another thread is
                generating.
        """
        if self._scheduler is not None and self.target.scheduler is not self._scheduler:
            raise RuntimeError(
                "scheduler: pipe.scheduler was replaced after keystep attached, so its steps cannot be "
                "followed; set the scheduler first, then call keystep.accelerate() or keystep.enable()"
            )
        if self.guided is not None and self.guided.has_stepped:
            self.step()  # not every latent took a step
        if self._is_due:
            self._begin_from_scheduler(arguments)
        if self.run is None:
            return self._outside_run()
        if self.run.thread != threading.get_ident():
            raise RuntimeError("pipeline: another thread is generating with it; use one pipeline per thread")
        return self.run

    def _begin_from_scheduler(self, arguments: Mapping[str, Any]) -> None:
        times = timesteps_of(self._scheduler)
        check_levels(times, arguments.get("timestep"), self.target)
        first = first_index(times, arguments.get("timestep"), self._scheduler, self.target)
        if first and getattr(self.method, "refined", 1) > 1:
            raise ValueError(
                "quality: 'converged' takes more steps from pure noise on; given a generation that begins in "
                "the middle (strength), where the pipeline would begin at another noise level; give a speedup"
            )
        self._begin(len(times) - first, self._read_guidance(), times[first:], self._read_noises()[first:])

    def _read_guidance(self) -> bool | None:
        if self.is_whole:  # for the trace alone, so no reason to refuse a pipeline that does not show it
            return shown_guidance(self.target, self.spec.guided == "flag")
        return None if self.spec.guided == "calls" else is_guided(self.target)

    def _read_noises(self) -> list[float]:
        if self.is_whole:  # a scheduler that cannot be read is refused before the model runs
            return [level.share for level in levels_of(self._scheduler)]
        return shares_of(self._scheduler)

    def _outside_run(self) -> None:
        if not self.traces or not self.traces[-1].is_complete:
            raise RuntimeError(
                "the model was called, but no generation has begun: set_timesteps() of the accelerated "
                "pipeline's scheduler was not called (another scheduler?), or the last generation broke off; "
                "without a pipeline, call begin(num_evaluations) before and step() after each evaluation"
            )
        if not self._has_warned_beyond:
            self._has_warned_beyond = True
            text = "the model was called again after the last evaluation of the generation; computed in full"
            warnings.warn(text, KeystepWarning, stacklevel=4)

    # ---------------------------------------------------------------- what happened

    @property
    def trace(self) -> Trace | None:
        """What the last generation did."""
        return self.traces[-1] if self.traces else None

    def summary(self) -> str:
        """Key steps, skipped work, bytes held and time of the last generation, in words."""
        return "no generation yet" if self.trace is None else summarize(self.trace)


@contextmanager
def attached(session: Session) -> Iterator[Session]:
    """Attach for the length of a `with` block."""
    session.attach()
    session.is_scoped = True
    try:
        yield session
    finally:
        session.close()


def session_of(target: Any) -> Session | None:
    """The session attached to a transformer or pipeline, even if its transformer was replaced since."""
    tie = tie_of(getattr(target, "scheduler", None))
    if tie is not None and isinstance(tie.session, Session) and tie.session.target is target:
        return tie.session
    for module in find_transformers(target).values():
        occupant = vars(module).get(CALL)
        if isinstance(occupant, (ModelSeat, GuidedSeat)) and isinstance(occupant.session, Session):
            return occupant.session
    return None
