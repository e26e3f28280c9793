"""Counting what a schedule skips, from its plans alone."""

from __future__ import annotations

from keystep.engine.planner import Planner
from keystep.policy import Policy
from keystep.what import LEAD, Branch


def count_skipped(policy: Policy, num_evaluations: int, label: str, is_guided: bool = True) -> int:
    """How many (evaluation, branch) pairs of a scheduled policy do not compute the sites of rule `label`.

    For the sites inside the model a branch that is not evaluated at all counts as skipped.
    """
    branches = ("uncond", LEAD) if is_guided else (LEAD,)
    planner = Planner(policy, branches, num_evaluations)
    plans, _ = planner.look_ahead(1, planner.start(), {})
    (rule,) = (rule for rule in planner.rules if rule.label == label)
    if isinstance(rule.what, Branch):
        return sum(rule.what.name not in plan.active for plan in plans.values())
    return sum(len(branches) - len(plan.active) * plan.computes(label) for plan in plans.values())
