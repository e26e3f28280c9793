"""A run is one generation: it owns the clock, the controllers' states, the histories and the trace."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch

from keystep.engine.history import Histories
from keystep.engine.ledger import Ledger
from keystep.engine.planner import EvaluationPlan, Planner, Step, inside
from keystep.engine.recorder import Recorder
from keystep.engine.storage import Storage
from keystep.engine.trace import Decision, Row, Trace
from keystep.how import Entry, Moment
from keystep.policy import Policy, Rule
from keystep.what import LEAD, Branch, Guidance, Guided, Output, Part, Span
from keystep.when import Always


class Run:
    """One generation.

    Args:
        policy: what to do.
        guidance: layout of the branches.
        is_guided: whether classifier-free guidance is on; None = the calls of the first evaluation will tell.
        num_evaluations: N, how many model evaluations (not sampler steps) there will be.
        times: the scheduler's timestep of each evaluation; may be empty.
        trace: where to write down what happens.
        storage: where and how histories are kept.
        max_further: calls that an evaluation may have beyond the layout, each a branch of its own.
        noises: share of noise in the latent at each evaluation, 0 to 1; may be empty.
    """

    def __init__(
        self,
        policy: Policy,
        guidance: Guidance,
        is_guided: bool | None,
        num_evaluations: int,
        times: Sequence[float],
        trace: Trace,
        storage: Storage,
        max_further: int = 0,
        noises: Sequence[float] = (),
    ) -> None:
        self.calls = guidance.calls(is_guided is not False)
        self.branches = tuple(branch for call in self.calls for branch in call)
        self.guidance = guidance
        self._policy = policy
        self._is_guidance_known = is_guided is not None
        self._num_further, self._max_further = 0, max_further
        self.num_evaluations = num_evaluations
        self.trace = trace
        self.thread = threading.get_ident()
        self.shape: tuple[int, ...] | None = None  # of the latent, per branch
        self.form: Any = None  # an output without content: what the model returns, for when it is not called
        self.output_dtype: torch.dtype | None = None
        self.lead_output: Any = None  # the conditional output, while other branches of its evaluation are due
        self.plan: EvaluationPlan | None = None
        self.recorder = Recorder(trace, noises)
        self._times, self._noises = times, noises
        self._planner = Planner(policy, self.branches, num_evaluations, times, noises)
        self._check_times()
        self._ledger = Ledger(self._planner, storage)
        self._condition: torch.Tensor | None = None
        self._num_alike = 0  # evaluations in a row with the text tensor of the one before
        self._evaluation = 0
        self._num_calls = 0
        self._measured: dict[str, float] = {}  # signals read so far in this evaluation
        self._seen: tuple[str, ...] = ()  # branches of this evaluation's calls so far
        self._has_returned = False  # whether one of them was not expected
        self.model = ""
        self.sites: dict[str, tuple[str, ...]] = {}  # attention module -> names of the tensors it returns
        self.trace.notes.extend(policy.notes)
        self._note_absent_rules()

    def _check_times(self) -> None:
        for rule in self._planner.rules:
            needs_time = rule.how.needs_time or rule.when.needs_time
            if needs_time and len(self._times) < self.num_evaluations:
                raise ValueError(
                    f"times: given {len(self._times)} for {self.num_evaluations} evaluations, but "
                    f"{rule.label} depends on the timesteps; pass begin(..., times=[...]) one for "
                    "each evaluation"
                )
            if rule.needs_noise and len(self._noises) < self.num_evaluations:
                raise ValueError(
                    f"noises: given {len(self._noises)} for {self.num_evaluations} evaluations, but "
                    f"{rule.label} depends on the noise level, which the scheduler does not tell; pass "
                    "begin(..., noises=[...]) one from 0 to 1 for each evaluation"
                )

    def _note_absent_rules(self) -> None:
        for rule in self._policy.rules:
            if rule not in self._planner.rules:
                self.trace.notes.append(f"guidance is off: {rule.label} stands aside")

    @property
    def histories(self) -> Histories:
        """The tensors held."""
        return self._ledger.histories

    @property
    def now(self) -> Moment:
        """The current evaluation."""
        index = self._evaluation - 1
        time = self._times[index] if index < len(self._times) else float("nan")
        return Moment(self._evaluation, time, self._measured)

    @property
    def noise(self) -> float:
        """Share of noise in the latent of the current evaluation."""
        return self._noises[self._evaluation - 1]

    @property
    def is_over(self) -> bool:
        """Whether all planned evaluations are done."""
        return self.plan is None and self._evaluation >= self.num_evaluations

    @property
    def may_skip(self) -> bool:
        """Whether the policy means to skip anything (a policy of `Always` does not)."""
        return (
            not all(isinstance(rule.when, Always) for rule in self._planner.rules) or not self._planner.rules
        )

    # ---------------------------------------------------------------- one evaluation

    def open_call(self, model: str, condition: torch.Tensor | None = None) -> tuple[str, ...]:
        """A model call begins; the first call of an evaluation makes its plan.

        Returns the call's branches, none for one that was left out before: the plan was made without it, so
        it is computed in full, and planned with again from the next evaluation on.

        `condition` is the text the model is given: a pipeline that hands over the same tensor evaluation
        after evaluation and then another one has changed its prompt, and nothing cached is worth anything.
        """
        if self.plan is None:
            self._open_evaluation(model, condition)
        if self._num_calls >= len(self.calls):
            self._add_call()
        branches = self.calls[self._num_calls]
        self._num_calls += 1
        if set(branches) & set(self._planner.absent):
            self._has_returned = True
            return ()
        self._seen += branches
        return branches

    def open_whole_call(self, model: str, condition: torch.Tensor | None = None) -> int:
        """`open_call` where the branches of a call do not matter: which call of its evaluation it is."""
        if self.plan is None:
            self._open_evaluation(model, condition)
            self._seen = (LEAD,)
        self._num_calls += 1
        return self._num_calls - 1

    def _add_call(self) -> None:
        """A call beyond the layout, in the first evaluation: other guidance, a branch of its own."""
        if self._evaluation > 1 or self._num_further == self._max_further:
            raise RuntimeError(
                f"guidance: the model was called {self._num_calls + 1} times in one evaluation, but the "
                f"layout {self.guidance} has {len(self.calls)} call(s) when guidance is "
                f"{'on' if len(self.branches) > 1 else 'off'}; pass guidance= to accelerate() with the "
                "layout of this pipeline"
            )
        assert self.plan is not None
        self._num_further += 1
        branch = f"further{self._num_further}"
        self.calls += ((branch,),)
        self._change_branches((*self.branches, branch))

    def _change_branches(self, branches: tuple[str, ...]) -> None:
        """The first evaluation shows other branches than expected: plan with them from now on."""
        assert self.plan is not None
        gone, new = set(self.branches) - set(branches), set(branches) - set(self.branches)
        self.branches = branches
        self._planner = Planner(self._policy, branches, self.num_evaluations, self._times, self._noises)
        self._ledger.follow(self._planner)
        active = (*(branch for branch in self.plan.active if branch not in gone), *new)
        steps = {rule.label: self.plan.steps[rule.label] for rule in self._planner.rules}
        self.plan = EvaluationPlan(self.plan.evaluation, active, steps)

    def _open_evaluation(self, model: str, condition: torch.Tensor | None) -> None:
        self._evaluation += 1
        self._num_calls, self._seen, self._measured = 0, (), {}
        if model != self.model:
            if not self.rule_on(Guided):  # what the guided output does goes on
                self._forget(f"evaluation {self._evaluation}: {model} takes over")
            self.model = model
        if self._has_changed(condition):
            self._forget(f"evaluation {self._evaluation}: the prompt changed")
        self.plan = self._ledger.plan(self._evaluation)

    def _has_changed(self, condition: torch.Tensor | None) -> bool:
        """Whether a pipeline that hands over one text tensor again and again now has another text.

        Pipelines that make the tensor anew for every call tell nothing, and cost nothing.
        """
        before, self._condition = self._condition, condition
        if condition is before:
            self._num_alike += 1
            return False
        was_steady, self._num_alike = self._num_alike > 0, 0
        if before is None or condition is None or not was_steady:
            return False
        return before.shape != condition.shape or not torch.equal(before, condition)

    def _forget(self, why: str) -> None:
        """What was computed and measured so far says nothing any more (another expert, another prompt)."""
        if self._evaluation > 1:
            self.trace.notes.append(f"{why}; everything is computed anew")
            self._ledger.forget(self._evaluation)

    def settle(self, rule: Rule, action: str) -> None:
        """The answer at a probe: replaces "ask" in the plan of this evaluation, also for its later calls."""
        assert self.plan is not None
        steps = dict(self.plan.steps)
        steps[rule.label] = Step("skip" if action == "skip" else "compute", "measured")
        if action == "skip":
            inner = [r for r in self._planner.rules if r.what.level > rule.what.level]
            steps.update({r.label: inside(rule) for r in inner})
        self.plan = EvaluationPlan(self.plan.evaluation, self.plan.active, steps)
        if action != "skip":
            self._ledger.make_room(rule, self.plan)

    def ask(self, rule: Rule, measured: dict[str, float]) -> None:
        """Let the controller decide in the middle of the forward."""
        self._measured = measured
        self.settle(rule, self._ledger.decide(rule, self._evaluation, measured))

    def close_evaluation(self) -> None:
        """The sampler took its step: feed the controllers, write the row, drop what nobody will use."""
        assert self.plan is not None, "closed only after a model call"
        self._check_calls()
        plan, measured = self.plan, self.recorder.read()
        self._ledger.close(plan, self._seen, measured)
        self._write_row(plan, measured)
        self._note_absent()
        self.plan, self.lead_output = None, None

    def _note_absent(self) -> None:
        """Guidance may pause in mid-run: plan the next evaluation with the branches of this one."""
        if self.rule_on(Guided):
            return
        left_out = tuple(branch for branch in self.branches if branch not in self._seen)
        absent = () if self._has_returned else left_out
        if absent and not self._planner.absent:
            self.trace.notes.append(
                f"evaluation {self._evaluation}: the pipeline left out {', '.join(absent)}"
            )
        self._has_returned = False
        self._ledger.leave_out(absent)

    def _check_calls(self) -> None:
        """Guidance may pause in mid-run (a branch is not called); the first evaluation must be whole."""
        if self._evaluation > 1 or self._num_calls == len(self.calls) or self.rule_on(Guided):
            return
        if not self._is_guidance_known and self._seen == (LEAD,):
            self._leave_guidance()
        else:
            raise RuntimeError(
                f"guidance: the model was called {self._num_calls} time(s) in the first evaluation, but the "
                f"layout {self.guidance} has {len(self.calls)}; pass guidance= to accelerate() with the "
                "layout of this pipeline"
            )

    def _leave_guidance(self) -> None:
        """The first evaluation had the conditional call only: go on as a run without guidance."""
        self.calls = self.guidance.calls(is_guided=False)
        self._change_branches((LEAD,))
        self.trace.guided = False
        self.trace.hidden_state_bytes //= len(self.guidance.order)
        self._note_absent_rules()

    def _write_row(self, plan: EvaluationPlan, measured: dict[str, dict[str, float]]) -> None:
        decisions = {
            label: Decision("skip" if step.action == "skip" else "compute", step.reason)
            for label, step in plan.steps.items()
        }
        signals = {name: value for values in measured.values() for name, value in values.items()}
        self.trace.peak_cache_bytes = self.histories.peak_bytes
        self.trace.rows.append(
            Row(
                evaluation=self._evaluation,
                timestep=self.now.time,
                model=self.model,
                branches=tuple(branch for branch in plan.active if branch in self._seen),
                decisions=decisions,
                signals=signals,
                cache_bytes=self.histories.num_bytes,
                seconds=self.recorder.lap(),
            )
        )

    # ---------------------------------------------------------------- rules and histories

    def rule_on(self, site: type[Span] | type[Output] | type[Guided] | type[Branch]) -> Rule | None:
        """The active rule on the span, the output, or a branch."""
        return next((rule for rule in self._planner.rules if isinstance(rule.what, site)), None)

    def rule_on_part(self, site: Part) -> Rule | None:
        """The active rule on parts of blocks."""
        return next((rule for rule in self._planner.rules if rule.what == site), None)

    def step_of(self, rule: Rule) -> Step:
        """What the current plan says of a rule."""
        assert self.plan is not None
        return self.plan.steps[rule.label]

    def keeps(self, rule: Rule, branch: str) -> bool:
        """Whether an entry computed now will be used."""
        return self._ledger.keeps(rule, branch, self._evaluation)

    def push(self, rule: Rule, site: str, branch: str, delta: torch.Tensor) -> None:
        """Store a computed delta (already a tensor of its own, not a view of something larger)."""
        self._ledger.push(rule, site, branch, delta, self.now)

    def predict(self, rule: Rule, site: str, *branches: str) -> torch.Tensor:
        """The predicted delta of a site, the rows of these branches."""
        return self._ledger.predict(rule, site, branches, self.now)

    def count_entries(self, rule: Rule, site: str, branch: str) -> int:
        """Entries held of a site for one branch."""
        return len(self.histories.get((rule.label, site, branch)))

    def hold(self, rule: Rule, name: str, tensors: tuple[torch.Tensor, ...]) -> None:
        """Count tensors that are held beside the histories, in place of those of the same name."""
        self.histories.push((rule.label, name, ""), Entry(self.now, tensors), 1)

    def release(self, rule: Rule, name: str) -> None:
        """Let go of what `hold` counts by that name."""
        self.histories.trim((rule.label, name, ""), 0)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise if the latent changed its shape in mid-run: histories would not fit."""
        if self.shape is None:
            self.shape = shape
        if shape != self.shape:
            raise ValueError(
                f"latent: the shape changed inside a run from {self.shape} to {shape} (per branch); "
                "a generation keeps one shape, start a new one with scheduler.set_timesteps"
            )
