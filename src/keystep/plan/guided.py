"""A method that forecasts the guided output, as `auto`: outside of the model, an evaluation is made or not.

So nothing is rehearsed: what a computed evaluation costs is known, and a skipped one costs nothing.
"""

from __future__ import annotations

from keystep.plan.cost import Cost
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
    return [_cost(workload, rule, each, plain) for each in skips]


def find_skips(rule: Rule, num_evaluations: int, value: float, times: tuple[float, ...] = ()) -> list[bool]:
    """Which evaluations a rule skips when every measurement is `value`."""
    measured = {signal.name: value for signal in rule.when.signals}
    state, skips = rule.when.begin(num_evaluations, times), []
    for evaluation in range(1, num_evaluations + 1):
        action = rule.when.plan(state, evaluation) if evaluation > 1 else "compute"
        if action == "ask":
            action = rule.when.decide(state, evaluation, measured)
        is_computed = action == "compute"
        state = rule.when.update(state, evaluation, is_computed, measured if evaluation > 1 else {})
        skips.append(not is_computed)
    return skips


def _cost(workload: Workload, rule: Rule, skips: list[bool], plain: Cost) -> list[Cost]:
    assert isinstance(rule.what, Guided)
    costs: list[Cost] = []
    for k, is_skipped in enumerate(skips):
        num_kept = min(k + 1 - sum(skips[: k + 1]), rule.how.num_entries)
        num_used = int(rule.what.correct and any(skips[: k + 1]))  # what forecasts put into the latent
        held = (num_kept + num_used) * _latent_bytes(workload)
        skipped = Cost(0, held, (rule.label,))
        costs.append(skipped if is_skipped else Cost(plain.flops, held, (), plain.calls, plain.values))
    return costs


def _latent_bytes(workload: Workload) -> int:
    """Of the latents of all videos, one branch, in float32."""
    (first, *_) = Guidance.parse(workload.spec.guidance).calls(is_guided=True)
    latent = workload.make_calls()[0][workload.spec.rows[0]]
    return latent.numel() // len(first) * 4
