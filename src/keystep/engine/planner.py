"""Which rules compute and which skip: pure Python, no tensors.

Plans are made evaluation by evaluation from what is really held. For the rules that follow a schedule the
planner can also look ahead to the end of the run, which tells what has to be kept: an entry no later
evaluation will use is neither stored nor copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keystep.policy import Policy, Rule
from keystep.what import LEAD, Branch, Output, Span
from keystep.when import Plan

Held = Mapping[tuple[str, str], tuple[int, ...]]  # (rule label, branch) -> evaluations held, oldest first


@dataclass(frozen=True)
class Step:
    """The plan of one rule for one evaluation."""

    action: Plan
    reason: str
    is_visited: bool = True  # False inside a skipped outer site


@dataclass(frozen=True)
class EvaluationPlan:
    """The plan of one evaluation: active branches and one `Step` per rule label."""

    evaluation: int
    active: tuple[str, ...]
    steps: dict[str, Step]

    def agrees(self, other: EvaluationPlan | None) -> bool:
        """Whether both plans do the same, for whatever reasons."""
        return other is not None and self.active == other.active and self._actions() == other._actions()

    def _actions(self) -> dict[str, tuple[Plan, bool]]:
        return {label: (step.action, step.is_visited) for label, step in self.steps.items()}

    def computes(self, label: str) -> bool:
        """Whether the rule's sites are really computed."""
        step = self.steps[label]
        return step.is_visited and step.action == "compute"

    def branches_of(self, rule: Rule) -> tuple[str, ...]:
        """Branches whose entries the rule pushes or uses in this evaluation."""
        return (rule.what.name,) if isinstance(rule.what, Branch) else self.active


def inside(outer: Rule) -> Step:
    """The step of a rule that is not visited because an outer site is skipped."""
    return Step("skip", f"inside a skipped {outer.label}", is_visited=False)


class Planner:
    """Plans the evaluations of one run.

    Attributes:
        absent: branches that the pipeline left out in the last evaluation, and so probably will in the next:
            no plan waits for their entries.
    """

    def __init__(
        self,
        policy: Policy,
        branches: tuple[str, ...],
        num_evaluations: int,
        times: Sequence[float] = (),
        noises: Sequence[float] = (),
    ) -> None:
        self.rules = sorted(
            (r for r in policy.rules if not isinstance(r.what, Branch) or r.what.name in branches),
            key=lambda rule: rule.what.level,
        )
        self.has_schedules = not all(self.keeps_all(rule) for rule in self.rules)
        self.branches = branches
        self.num_evaluations = num_evaluations
        self.times, self.noises = times, noises
        self.absent: tuple[str, ...] = ()

    def start(self) -> dict[str, Any]:
        """Controller states at the begin of a run."""
        return {
            rule.label: rule.when.begin(
                self.num_evaluations, self.noises if rule.when.needs_noise else self.times
            )
            for rule in self.rules
        }

    def plan(
        self,
        evaluation: int,
        states: Mapping[str, Any],
        held: Held,
        last: Mapping[tuple[str, str], int] | None = None,
    ) -> EvaluationPlan:
        """The plan of one evaluation, outer sites first.

        `last` tells when each rule and branch was last computed, where not everything computed is held.
        """
        last = last or {key: entries[-1] for key, entries in held.items() if entries}
        active, steps, outer = self.branches, {}, None
        for rule in self.rules:
            if outer is not None:
                step = inside(outer)
            else:
                needed = (rule.what.name,) if isinstance(rule.what, Branch) else active
                needed = tuple(branch for branch in needed if branch not in self.absent)
                step = self._step(rule, evaluation, states[rule.label], held, last, needed)
            steps[rule.label] = step
            if step.action == "skip" and isinstance(rule.what, Branch):
                active = tuple(branch for branch in active if branch != rule.what.name)
            if outer is None and step.action == "skip" and isinstance(rule.what, (Output, Span)):
                outer = rule
        return EvaluationPlan(evaluation, active, steps)

    def _step(
        self,
        rule: Rule,
        evaluation: int,
        state: Any,
        held: Held,
        last: Mapping[tuple[str, str], int],
        needed: tuple[str, ...],
    ) -> Step:
        if evaluation > self.num_evaluations:
            return Step("compute", "beyond the schedule")
        action = rule.when.plan(state, evaluation)
        if action == "compute":
            return Step("compute", "measured" if rule.when.signals else "scheduled")
        for branch in needed:
            key = (rule.label, branch)
            newest = last.get(key, evaluation)
            lag = last.get((rule.label, LEAD), newest) - newest
            if rule.max_lag is not None and lag > rule.max_lag:
                return Step("compute", f"fallback: stale, {branch} is {lag} evaluations behind {LEAD}")
            age = evaluation - newest
            if rule.max_age is not None and age > rule.max_age:
                return Step("compute", f"fallback: stale, {branch} is {age} evaluations old")
            num_held = len(held.get(key, ()))
            if num_held < rule.how.num_needed:
                return Step("compute", f"fallback: {num_held} of {rule.how.num_needed} entries for {branch}")
        return Step(action, "measured" if rule.when.signals else "scheduled")

    def keeps_all(self, rule: Rule) -> bool:
        """Whether the future of a rule is unknown: it measures, or lies inside something that does; or its
        predictor learns from everything that is computed.
        """
        around = [r for r in self.rules if isinstance(r.what, (Output, Span))]
        outer = (r for r in around if r.what.level < rule.what.level)
        return rule.how.learns or bool(rule.when.signals) or any(r.when.signals for r in outer)

    def look_ahead(
        self, evaluation: int, states: Mapping[str, Any], held: Held
    ) -> tuple[dict[int, EvaluationPlan], dict[tuple[str, str, int], int]]:
        """Play the rest of the run, measuring rules computing throughout.

        Returns:
            The expected plans by evaluation, and for each entry (rule label, branch, evaluation) the last
            evaluation that uses it.
        """
        held, plans, last_use = dict(held), {}, {}
        for k in range(evaluation, self.num_evaluations + 1):
            plans[k] = plan = self.plan(k, states, held)
            for rule in self.rules:
                for branch in plan.branches_of(rule):
                    entries = held.get((rule.label, branch), ())
                    if plan.computes(rule.label):
                        held[rule.label, branch] = (*entries, k)[-rule.how.num_entries :]
                    elif plan.steps[rule.label].is_visited:
                        last_use.update({(rule.label, branch, e): k for e in entries})
        return plans, last_use
