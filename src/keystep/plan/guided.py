"""A method that forecasts the guided output, as `auto`: outside of the model, an evaluation is made or not.

So nothing is rehearsed: what a computed evaluation costs is known, and a skipped one costs nothing.
"""

from __future__ import annotations

from dataclasses import replace

from keystep.plan.cost import Cost
from keystep.plan.skips import find_skips
from keystep.plan.workload import Workload
from keystep.policy import Policy, Rule
from keystep.what import Guidance, Guided

LARGE = 1e6  # times the latent: a forecast so wrong that everything is computed


def guided_rule(policy: Policy) -> Rule | None:
    """The rule on the guided output; such a policy has no other."""
    return next((rule for rule in policy.rules if isinstance(rule.what, Guided)), None)


def guided_runs(workload: Workload, rule: Rule, num_evaluations: int, plain: Cost) -> list[list[Cost]]:
    """The runs between which the rule lies, most skipped first; a schedule is one.

    Args:
        workload: the run.
        rule: on the guided output.
        num_evaluations: of this run, of which a refined one has more than the plain one.
        plain: the cost of a plain evaluation.
    """
    # Even shares of noise: where evaluations lie depends on the scheduler, how many they are does not.
    shares = tuple(1 - k / num_evaluations for k in range(num_evaluations))
    ends = (0.0, LARGE) if rule.when.signals else (0.0,)
    skips = [find_skips(rule, num_evaluations, value, shares) for value in ends]
    return [_costs(workload, rule, each, plain) for each in skips]


def _costs(workload: Workload, rule: Rule, skips: list[bool], plain: Cost) -> list[Cost]:
    assert isinstance(rule.what, Guided)
    latent_bytes = _latent_bytes(workload)
    costs: list[Cost] = []
    num_kept = num_used = 0
    for is_skipped in skips:
        if is_skipped:
            num_used = int(rule.what.correct)  # what forecasts put into the latent
        else:
            num_kept = min(num_kept + 1, rule.how.num_entries)
        held = (num_kept + num_used) * latent_bytes
        costs.append(Cost(0, held, (rule.label,)) if is_skipped else replace(plain, cache_bytes=held))
    return costs


def _latent_bytes(workload: Workload) -> int:
    """Of the latents of all videos, one branch, in float32."""
    (first, *_) = Guidance.parse(workload.spec.guidance).calls(is_guided=True)
    latent = workload.make_calls()[0][workload.spec.rows[0]]
    return latent.numel() // len(first) * 4
