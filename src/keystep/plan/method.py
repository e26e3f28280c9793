"""What a method makes of a run: how much is computed, how much it holds. Rehearsed with the real engine."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

import keystep
from keystep.engine.method import Method
from keystep.metrics.flops import FlopCounter
from keystep.plan.cost import Cost
from keystep.plan.guided import guided_rule, guided_runs
from keystep.plan.skips import find_skips
from keystep.plan.workload import Workload, on_meta
from keystep.policy import Policy, Rule
from keystep.what import Branch, Mlp, Span
from keystep.when import Mask

Number = TypeVar("Number", int, float)

# After so many evaluations that compute everything, a policy that measures holds all it ever will.
NUM_SETTLING = 4


@dataclass(frozen=True)
class MethodPlan:
    """A method in figures; pairs are (least, most) and equal where the method is a schedule.

    Attributes:
        skips: rule -> evaluations in which it skips.
        computed: evaluations in which nothing is skipped.
        compute: FLOPs of the run over those of the plain one.
        cache_bytes: the most that is held for reuse at once.
        is_adaptive: whether it measures: what it skips depends on the video.
        needs_both_branches: whether a guidance branch is rebuilt from the other's output.
        runs: cost of each evaluation, of the run in which most is skipped first.
        notes: remarks, e.g. what is switched off for this length of run.
    """

    skips: dict[str, tuple[int, int]]
    computed: tuple[int, int]
    compute: tuple[float, float]
    cache_bytes: int
    is_adaptive: bool
    needs_both_branches: bool
    runs: tuple[tuple[Cost, ...], ...]
    notes: tuple[str, ...]


def plan_method(workload: Workload, method: Method, plain: Cost) -> MethodPlan:
    """Rehearse a run on the meta device.

    Args:
        workload: the run.
        method: what accelerates it.
        plain: the cost of a plain evaluation, see `ModelPlan`.

    Raises:
        ValueError: the method does not fit the model.
    """
    num_evaluations = workload.num_evaluations * getattr(method, "refined", 1)
    policy = method.policy(workload.spec.name, num_evaluations)
    is_adaptive = any(rule.when.signals for rule in policy.rules)
    guided = guided_rule(policy)
    if guided is not None:
        runs, held = guided_runs(workload, guided, num_evaluations, plain), []
    else:
        runs = [
            rehearse(workload, each, num_evaluations) if each.rules else [plain] * num_evaluations
            for each in bounds(policy, num_evaluations)
        ]
        held = rehearse(workload, policy, min(NUM_SETTLING, num_evaluations)) if is_adaptive else []
    labels = [rule.label for rule in policy.rules]
    plain_flops = plain.flops * workload.num_evaluations
    return MethodPlan(
        skips={label: _range(sum(label in cost.skipped for cost in run) for run in runs) for label in labels},
        computed=_range(sum(not cost.skipped for cost in run) for run in runs),
        compute=_range(sum(cost.flops for cost in run) / plain_flops for run in runs),
        cache_bytes=max(cost.cache_bytes for run in (*runs, held) for cost in run),
        is_adaptive=is_adaptive,
        needs_both_branches=any(isinstance(rule.what, Branch) for rule in policy.rules),
        runs=tuple(map(tuple, runs)),
        notes=policy.notes,
    )


def _range(values: Iterable[Number]) -> tuple[Number, Number]:
    known = list(values)
    return min(known), max(known)


# ---------------------------------------------------------------- the ends of what an adaptive method does


def bounds(policy: Policy, num_evaluations: int) -> list[Policy]:
    """The schedules between which a policy that measures lies; a schedule itself."""
    if not any(rule.when.signals for rule in policy.rules):
        return [policy]
    # 0: nothing ever changes and all is skipped that may be; nan: nothing is known and all is computed
    ends = ([_fix(rule, num_evaluations, value) for rule in policy.rules] for value in (0.0, math.nan))
    return [replace(policy, rules=tuple(filter(None, rules))) for rules in ends]


def _fix(rule: Rule, num_evaluations: int, value: float) -> Rule | None:
    """The rule with the schedule its controller keeps when every measurement is `value`; None: no skip."""
    if not rule.when.signals:
        return rule
    letters = "".join("s" if skips else "C" for skips in find_skips(rule, num_evaluations, value))
    return replace(rule, when=Mask(letters)) if "s" in letters else None


# ---------------------------------------------------------------- rehearsals


def rehearse(workload: Workload, policy: Policy, num_evaluations: int) -> list[Cost]:
    """The costs of the first evaluations of a run under a policy."""
    spans = [rule.what for rule in policy.rules if isinstance(rule.what, Span)]
    shallow = 1 + max((span.start + span.num_after for span in spans), default=0)
    if workload.depth <= shallow + 1 or not all(map(_is_alike_in_all_blocks, policy.rules)):
        return _run(workload, policy, workload.depth, num_evaluations)
    # The blocks of a list cost the same: what a deep model costs follows from two shallow ones.
    pair = (_run(workload, policy, depth, num_evaluations) for depth in (shallow, shallow + 1))
    more = workload.depth - shallow
    return [a.grow(b, more) for a, b in zip(*pair, strict=True)]


def _is_alike_in_all_blocks(rule: Rule) -> bool:
    return not (isinstance(rule.what, Mlp) and (rule.what.first > 0 or rule.what.last is not None))


def _run(workload: Workload, policy: Policy, depth: int, num_evaluations: int) -> list[Cost]:
    transformer, calls = workload.build(depth), workload.make_calls()
    num_all = workload.num_evaluations
    times = [1000 * left / num_all for left in range(num_all, 0, -1)]  # even; windows of timesteps look
    num_frames = workload.spec.count_frames(transformer, calls[0])
    costs: list[Cost] = []
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore", keystep.KeystepWarning)  # of runs that skip nothing: a plan shows it
        watch = stack.enter_context(on_meta(transformer, workload.spec))
        session = stack.enter_context(keystep.accelerate(transformer, policy, spec=workload.spec))
        session.begin(len(times), times=times, noises=[0.5] * len(times))
        for _ in range(num_evaluations):
            with FlopCounter() as counter:
                for inputs in calls:
                    transformer(**inputs, return_dict=False)
            assert session.run is not None
            # read before what nobody will use is dropped: the most there is in this evaluation
            held = session.run.histories.num_bytes
            session.step()
            skipped = session.traces[-1].rows[-1].skipped
            costs.append(Cost(counter.total, held, skipped, *watch.take(num_frames)))
    return costs
