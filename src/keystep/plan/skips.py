"""What a controller decides all along a run, without the run: every measurement is the same."""

from __future__ import annotations

from keystep.policy import Rule


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
