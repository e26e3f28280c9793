"""What is held and what of it will be used: the histories of a run, kept in step with its plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from keystep.engine.history import Histories
from keystep.engine.planner import EvaluationPlan, Planner
from keystep.engine.storage import Storage
from keystep.how import Entry, Moment
from keystep.policy import Rule
from keystep.what.branch import join_rows, join_views


class Ledger:
    """Histories, controller states, and the look-ahead that tells which entries are worth keeping.

    Args:
        planner: of the run.
        storage: where and how histories are kept.
    """

    def __init__(self, planner: Planner, storage: Storage) -> None:
        self.histories = Histories()
        self.planner = planner
        self.storage = storage
        self._rules = {rule.label: rule for rule in planner.rules}
        self._states = planner.start()
        self._held: dict[tuple[str, str], tuple[int, ...]] = {}
        self._last: dict[tuple[str, str], int] = {}  # when a rule and branch was last computed, held or not
        self._expected: dict[int, EvaluationPlan] = {}
        self._last_use: dict[tuple[str, str, int], int] = {}

    # ---------------------------------------------------------------- plans

    def plan(self, evaluation: int) -> EvaluationPlan:
        """The plan of an evaluation from what is held; makes room for what it will compute."""
        plan = self.planner.plan(evaluation, self._states, self._held, self._last)
        # what measures keeps everything anyway: there is nothing to learn from a look ahead
        if self.planner.has_schedules and not plan.agrees(self._expected.get(evaluation)):
            self._expected, self._last_use = self.planner.look_ahead(evaluation, self._states, self._held)
        for rule in self.planner.rules:
            if plan.computes(rule.label):
                self.make_room(rule, plan)
        return plan

    def leave_out(self, absent: tuple[str, ...]) -> None:
        """Plan without these branches from now on, and drop what is held of them: it would be old."""
        if absent == self.planner.absent:
            return
        self.planner.absent = absent
        self._expected = {}
        for label, branch in list(self._last):
            if branch in absent:
                self.histories.trim_rule(label, branch, 0)
                self._held.pop((label, branch), None)
                del self._last[label, branch]

    def follow(self, planner: Planner) -> None:
        """Go on with another planner whose rules are among those of the present one."""
        self.planner = planner
        self._expected = {}

    def decide(self, rule: Rule, evaluation: int, measured: Mapping[str, float]) -> str:
        """The controller's answer at a probe: "compute" or "skip"."""
        return rule.when.decide(self._states[rule.label], evaluation, measured)

    def forget(self, evaluation: int) -> None:
        """What was computed and measured before `evaluation` says nothing any more."""
        self.histories.clear()
        self._held.clear()
        self._last.clear()
        for rule in self.planner.rules:
            state = self._states[rule.label]
            self._states[rule.label] = rule.when.update(state, evaluation - 1, True, {})

    def close(
        self, plan: EvaluationPlan, seen: tuple[str, ...], measured: Mapping[str, Mapping[str, float]]
    ) -> None:
        """After an evaluation: feed the controllers, note what was computed, drop what nobody will use.

        Args:
            plan: of the evaluation.
            seen: branches the pipeline really asked for.
            measured: rule label -> signal name -> value.
        """
        for rule in self.planner.rules:
            if plan.steps[rule.label].is_visited:
                state, is_computed = self._states[rule.label], plan.computes(rule.label)
                values = measured.get(rule.label, {})
                self._states[rule.label] = rule.when.update(state, plan.evaluation, is_computed, values)
            if plan.computes(rule.label):
                for branch in plan.branches_of(rule):
                    if branch in seen:
                        self._note_computed(rule, branch, plan.evaluation)
        self._drop_unused(plan.evaluation)

    # ---------------------------------------------------------------- entries

    def keeps(self, rule: Rule, branch: str, evaluation: int) -> bool:
        """Whether an entry computed at `evaluation` will be used."""
        return self.planner.keeps_all(rule) or (rule.label, branch, evaluation) in self._last_use

    def make_room(self, rule: Rule, plan: EvaluationPlan) -> None:
        """Drop what the push of a computed evaluation will replace, before the new tensors are made."""
        if rule.how.learns:
            return
        for branch in plan.branches_of(rule):
            if self.keeps(rule, branch, plan.evaluation):
                num_kept = rule.how.num_entries - 1
                self.histories.trim_rule(rule.label, branch, num_kept)
                entries = self._held.get((rule.label, branch), ())
                self._held[rule.label, branch] = entries[max(0, len(entries) - num_kept) :]

    def push(self, rule: Rule, site: str, branch: str, delta: torch.Tensor, now: Moment) -> None:
        """Store a computed delta (already a tensor of its own, not a view of something larger)."""
        history = self._history(rule, site, branch) if rule.how.learns else []
        values = rule.how.keep(delta.detach(), history, now)
        dtypes = tuple(value.dtype for value in values)
        entry = Entry(now, self.storage.store(values), delta.device, dtypes)
        self.histories.push((rule.label, site, branch), entry, rule.how.num_entries)

    def predict(self, rule: Rule, site: str, branches: Sequence[str], now: Moment) -> torch.Tensor:
        """The predicted delta of a site, the rows of all of these branches.

        Predictors work row by row, so branches that were computed in one tensor are predicted in one.
        """
        histories = [self._history(rule, site, branch) for branch in branches]
        if (joined := _join(histories)) is not None:
            return rule.how.predict(joined, now)
        return join_rows([rule.how.predict(history, now) for history in histories])

    def _history(self, rule: Rule, site: str, branch: str) -> list[Entry]:
        return [self.storage.load(entry) for entry in self.histories.get((rule.label, site, branch))]

    def _note_computed(self, rule: Rule, branch: str, evaluation: int) -> None:
        key = (rule.label, branch)
        self._last[key] = evaluation
        if self.keeps(rule, branch, evaluation):
            self._held[key] = (*self._held.get(key, ()), evaluation)[-rule.how.num_entries :]

    def _drop_unused(self, evaluation: int) -> None:
        for (label, branch), entries in list(self._held.items()):
            if self.planner.keeps_all(self._rules[label]):
                continue
            useful = tuple(e for e in entries if self._last_use.get((label, branch, e), 0) > evaluation)
            if useful != entries:
                # entries die oldest first, so the useful ones are the newest
                self.histories.trim_rule(label, branch, len(useful))
                self._held[label, branch] = useful


def _join(histories: Sequence[Sequence[Entry]]) -> list[Entry] | None:
    """One history of all rows, where each entry of one branch lies behind that of the branch before."""
    if len({len(history) for history in histories}) > 1:
        return None
    joined = []
    for entries in zip(*histories, strict=True):
        values = [join_views(each) for each in zip(*(entry.values for entry in entries), strict=True)]
        if any(value is None for value in values):
            return None
        joined.append(replace(entries[0], values=tuple(values)))
    return joined
