"""L10: decisions by hand-made lists: FasterCache presets at native and other lengths, codebooks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystep import AdaCache, FasterCache, Policy
from keystep.engine.planner import Planner
from keystep.how import Hold
from keystep.methods.adacache import BOOKS
from keystep.methods.fastercache import MAX_GAIN, PRESETS
from keystep.when import Codebook, MotionRegularisation
from tests.counts import count_skipped


def span_of(first: int, last: int, *, without: int) -> list[int]:
    """first..last but for the multiples of `without`."""
    return [k for k in range(first, last + 1) if k % without]


def evens(first: int, last: int, *but: int) -> list[int]:
    return [k for k in range(first, last + 1, 2) if k not in but]


# name: (N, evaluations without the unconditional branch, evaluations that reuse attention) as the scripts run
MOCHI_PARTS = [c + 1 for c in range(22, 63) if c % 5]  # counted from 0 there
NATIVE: dict[str, tuple[int, list[int], list[int]]] = {
    "opensora": (30, [12, 13, 14, 16, 17, 18, 19, 21, 22, 23, 24, 26, 27, 28, 29], evens(8, 30, 20, 30)),
    "opensora-plan": (159, span_of(40, 159, without=6), span_of(46, 159, without=3)),
    "latte": (50, span_of(18, 50, without=5), evens(16, 50, 20, 30, 40, 50)),
    "cogvideox": (
        50,
        span_of(18, 50, without=5),
        [19, 22, 23, 26, 28, 29, 31, 32, 34, 37, 38, 41, 43, 44, 46, 47, 49],
    ),
    "vchitect": (100, span_of(31, 100, without=5), evens(32, 100)),
    "mochi": (64, MOCHI_PARTS, [c + 1 for c in evens(20, 62, 30, 40, 50, 60)]),
}


def played(policy: Policy, steps: int, guided: bool = True) -> dict[str, list[int]]:
    """Skipped evaluations by rule."""
    planner = Planner(policy, ("uncond", "cond") if guided else ("cond",), steps)
    plans, _ = planner.look_ahead(1, planner.start(), {})
    return {
        rule.label: [k for k, plan in plans.items() if plan.steps[rule.label].action == "skip"]
        for rule in planner.rules
    }


def without_age(policy: Policy) -> Policy:
    return replace(policy, rules=tuple(replace(rule, max_age=None) for rule in policy.rules))


@pytest.mark.parametrize("name", NATIVE)
def test_native_schedules(name: str) -> None:
    steps, parts, reuses = NATIVE[name]
    policy = FasterCache(preset=name).policy("", steps)
    assert played(policy, steps) == {"branch[uncond]": parts, "attention": reuses}


# skipped branch evaluations of attention with max_age, without it, and unconditional forwards skipped
COUNTS = {
    "opensora": (27, 31, 15),
    "opensora-plan": (176, 176, 100),
    "latte": (41, None, 26),  # the scripts have the freshness condition themselves
    "cogvideox": (43, None, 26),
    "vchitect": (98, 98, 56),
    "mochi": (None, 60, 33),
}


@pytest.mark.parametrize("name", COUNTS)
def test_skip_counts(name: str) -> None:
    fresh, any_age, parts = COUNTS[name]
    steps = PRESETS[name].native
    policy = FasterCache(preset=name).policy("", steps)
    assert count_skipped(policy, steps, "branch[uncond]") == parts
    if fresh is not None:
        assert count_skipped(policy, steps, "attention") == fresh
    if any_age is not None:
        assert count_skipped(without_age(policy), steps, "attention") == any_age
    assert count_skipped(policy, steps, "attention") <= count_skipped(without_age(policy), steps, "attention")


def test_open_sora_reuses_on_twelve_evaluations_without_an_age_limit() -> None:
    policy = without_age(FasterCache(preset="opensora").policy("", 30))
    assert played(policy, 30)["attention"] == evens(8, 30)
    assert played(policy, 30, guided=False)["attention"] == evens(8, 30)


def test_attention_weights() -> None:
    """w(k) of the scripts' table."""
    for name, evaluation, weight in [
        ("opensora", 8, 0.045),
        ("opensora", 20, 0.585),
        ("opensora", 30, 1.035),
        ("latte", 16, 0.5),
        ("cogvideox", 19, 0.3),
        ("opensora-plan", 46, 0.3),
        ("vchitect", 32, 0.0),
        ("mochi", 21, 0.5),
        ("mochi", 64, 1.0),
        ("mochi", 43, 42 / 63),
    ]:
        from keystep.how import Moment

        assert PRESETS[name].weight.at((), Moment(evaluation, 0.0)) == pytest.approx(weight), name


@pytest.mark.parametrize("name", [*PRESETS])
@given(steps=st.integers(1, 200))
def test_scaled_presets_are_sane_at_any_length(name: str, steps: int) -> None:
    policy = FasterCache(preset=name).policy("", steps)
    skipped = played(policy, steps)
    for label, evaluations in skipped.items():
        assert all(k >= 6 for k in evaluations) or steps == PRESETS[name].native, label
    if steps < 12:
        assert "branch[uncond]" not in skipped and policy.notes
    elif steps != PRESETS[name].native:
        assert steps not in skipped["branch[uncond]"], "the last evaluation is full"
        assert skipped["branch[uncond]"]
        (cfg,) = (rule for rule in policy.rules if rule.label == "branch[uncond]")
        bands = () if isinstance(cfg.how, Hold) else (cfg.how.low, cfg.how.high)
        for gain in bands:
            assert all(gain.at(1, k) <= MAX_GAIN for k in range(2, steps + 1))
    if steps >= 8:
        assert skipped["attention"]


def test_scaled_growth_is_kept() -> None:
    """Twice the evaluations: half the growth per evaluation; starts are fractions of the run."""
    low = FasterCache(preset="latte").policy("", 100).rules[0].how.low
    assert low.rate == pytest.approx(1.1**0.5) and low.stop == pytest.approx(88)
    skipped = played(FasterCache(preset="latte").policy("", 100), 100)
    assert skipped["attention"][0] in (32, 33) and skipped["branch[uncond]"][0] == 36
    skipped = played(FasterCache(preset="opensora").policy("", 20), 20)
    assert skipped["attention"][0] in (6, 7) and skipped["branch[uncond]"][0] in (8, 9)


# ------------------------------------------------------------------ AdaCache


def codebook_run(when: Codebook, distances: dict[int, float], steps: int, motion: float = 0.385) -> list[int]:
    """Computed evaluations when the summed change since the last computed one is `distances[k]`."""
    state, computed = when.begin(steps), []
    for k in range(1, steps + 1):
        is_computed = when.plan(state, k) == "compute"
        measured = {}
        if is_computed:
            computed.append(k)
            if len(computed) > 1:
                measured = {"distance": distances.get(k, 0.0), "motion": motion}
        state = when.update(state, k, is_computed, measured)
    return computed


def codebook(name: str, steps: int, **options: object) -> Codebook:
    return AdaCache(name, **options).policy("", steps).rules[0].when


def test_codebook_decisions_by_hand() -> None:
    """Distance per evaluation looks up the rate; the first and the last two evaluations always compute."""
    fast = codebook("fast", 30)
    assert codebook_run(fast, {}, 30) == [1, 2, 8, 14, 20, 26, 29, 30]
    assert codebook_run(fast, dict.fromkeys(range(31), 9.0), 30) == list(range(1, 31))
    # at 2: .10 -> rate 5 -> 7; at 7: 1.0 / 5 = .20 -> 4 -> 11; at 11: 1.4 / 4 = .35 -> 2 -> 13;
    # at 13: .08 / 2 -> 6 -> 19; at 19: 2.41 / 6 is above .40 -> 1 -> 20;
    # at 20: .16 is not below .16 -> 4 -> 24; at 24: 0 -> 6 -> 30, but the last but one computes too
    distances = {2: 0.10, 7: 1.0, 11: 1.4, 13: 0.08, 19: 2.41, 20: 0.16}
    assert codebook_run(fast, distances, 30) == [1, 2, 7, 11, 13, 19, 20, 24, 29, 30]
    slow = codebook("slow", 30)
    assert codebook_run(slow, {2: 0.1}, 30) == [1, 2, 4, 7, 10, 13, 16, 19, 22, 25, 28, 29, 30]
    hundred = codebook("fast-100", 100)
    assert codebook_run(hundred, {}, 100) == [1, 2, 14, 26, 38, 50, 62, 74, 86, 98, 99, 100]
    assert codebook_run(codebook("fast-100", 100), dict.fromkeys(range(101), 99.0), 100)[:4] == [1, 2, 5, 8]


def test_a_distance_that_is_no_number_takes_the_last_rate() -> None:
    nan = float("nan")
    assert codebook("fast", 30).lookup(nan) == 1
    assert codebook("fast-100", 100).lookup(nan) == 3
    assert codebook("fast", 30).lookup(float("inf")) == 1
    assert codebook_run(codebook("fast", 30), dict.fromkeys(range(31), nan), 30) == list(range(1, 31))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 12, 25, 30, 60, 150])
@pytest.mark.parametrize("name", [*BOOKS])
def test_books_scale_with_the_number_of_evaluations(name: str, steps: int) -> None:
    """The longest gaps cover the same part of the run; the ends are always computed."""
    when = codebook(name, steps)
    native = BOOKS[name]
    computed = codebook_run(when, {}, steps)
    assert {1, steps} <= set(computed) and (steps < 2 or {2, steps - 1} <= set(computed))
    for (threshold, rate), (own, own_rate) in zip(when.entries, native.entries, strict=True):
        assert threshold * steps == pytest.approx(own * native.native)
        assert abs(rate - own_rate * steps / native.native) <= 0.5 or rate == 1


def test_motion_regularisation_by_hand() -> None:
    """M = M0 + |10 (M0 - previous) / rate|, M0 = (m / .385)^8 inside the window and 1 outside."""
    moreg = MotionRegularisation(4, 26)
    assert moreg.factor(0.385, 1.0, 3, 10) == (1.0, 1.0)
    factor, level = moreg.factor(0.5, 1.0, 2, 10)
    assert level == pytest.approx((0.5 / 0.385) ** 8)
    assert factor == pytest.approx(level + 10 * (level - 1) / 2)
    assert moreg.factor(0.5, 1.0, 2, 3) == (1.0, 1.0), "before the window"
    assert moreg.factor(0.5, 8.1, 4, 27) == (pytest.approx(1 + 10 * 7.1 / 4), 1.0), "leaving it"
    assert moreg.factor(float("nan"), 1.0, 2, 10) == (1.0, 1.0), "a single frame has no motion"
    factor, level = moreg.factor(0.3, 1.0, 1, 10)
    assert factor == pytest.approx(level + 10 * (1 - level)), "falling motion raises the distance too"


def test_moving_videos_get_more_evaluations() -> None:
    when = codebook("fast", 30, moreg=True)
    distances = dict.fromkeys(range(31), 0.12)
    still, moving = (codebook_run(when, distances, 30, motion) for motion in (0.385, 0.6))
    assert len(still) < len(moving)
    assert codebook_run(when, distances, 30, 0.385) == codebook_run(codebook("fast", 30), distances, 30)
