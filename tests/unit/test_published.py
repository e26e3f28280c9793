"""Published methods: their constants and schedules, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from keystep import Policy
from keystep.engine.planner import Planner
from keystep.how import Hold, Taylor
from keystep.methods import (
    METHODS,
    PAB,
    DBCache,
    DiCache,
    EasyCache,
    FBCache,
    SeaCache,
    TaylorSeer,
    TeaCache,
    build,
)
from keystep.methods.dbcache import MASKS, mask_for
from keystep.what import (
    Attention,
    AttentionInput,
    Branch,
    FilteredLatent,
    Mlp,
    Output,
    PrefixResidual,
    Span,
    SpanInput,
    StackInput,
    TimeEmbedding,
)
from keystep.when import Accumulate, Below, Mask, PredictedChange


def computed(policy: Policy, steps: int, times: list[float] | None = None) -> dict[str, list[int]]:
    """Computed evaluations of a schedule by rule."""
    planner = Planner(policy, ("uncond", "cond"), steps, times or ())
    plans, _ = planner.look_ahead(1, planner.start(), {})
    return {
        rule.label: [k for k, plan in plans.items() if plan.steps[rule.label].action == "compute"]
        for rule in planner.rules
    }


# ------------------------------------------------------------------ TeaCache


def test_teacache_measures_what_the_reference_does() -> None:
    (rule,) = TeaCache().policy("latte", 50).rules
    assert (rule.what, rule.how) == (Span(), Hold()) and isinstance(rule.when, Accumulate)
    assert rule.when.change.probe == AttentionInput() and rule.when.change.since == "previous"
    assert (rule.when.threshold, rule.when.num_first, rule.when.num_last) == (0.1, 1, 1)
    (rule,) = TeaCache(0.2, preset="wan-14b").policy("wan", 50).rules
    assert rule.when.change.probe == TimeEmbedding() and rule.when.threshold == 0.2
    assert TeaCache().policy("wan", 50).rules[0].when.threshold == 0.05
    assert TeaCache().policy("nobody's", 50).rules[0].when.polynomial == (1.0, 0.0)


def test_teacache_says_when_its_polynomial_may_be_another_models() -> None:
    assert "cogvideox-5b" in TeaCache().policy("cogvideox", 50).notes[0]
    assert "no polynomial is known for toy" in TeaCache().policy("toy", 50).notes[0]
    assert TeaCache(preset="cogvideox-5b").policy("cogvideox", 50).notes == ()
    assert TeaCache().policy("opensora", 30).notes == ()


@pytest.mark.parametrize(
    ("name", "change", "value"),
    [
        ("opensora", 0.1, 0.215937),
        ("latte", 0.05, 0.130274),
        ("cogvideox", 0.05, 0.072449),
        ("ltx", 0.1, 0.101415),
    ],
)
def test_teacache_polynomials_at_a_point(name: str, change: float, value: float) -> None:
    """Worked out with a pocket calculator, the highest power first."""
    (rule,) = TeaCache(preset=name).policy(name, 50).rules
    assert rule.when.rescale(change) == pytest.approx(value, abs=1e-6)


# ------------------------------------------------------------------ FBCache, DBCache


def test_fbcache_is_one_rule() -> None:
    (rule,) = FBCache(0.1).policy("wan", 50).rules
    assert (rule.what, rule.how) == (Span(1), Hold())
    assert isinstance(rule.when, Below) and rule.when.change.probe == PrefixResidual(1)
    assert (rule.when.threshold, rule.when.num_first, rule.when.num_last) == (0.1, 1, 0)


def test_dbcache_has_blocks_at_both_ends() -> None:
    (rule,) = DBCache().policy("wan", 50).rules
    assert (rule.what, rule.how, rule.when.num_first) == (Span(8, 0), Hold(), 8)
    (rule,) = DBCache(first=4, last=2, order=1, max_consecutive=3).policy("wan", 50).rules
    assert (rule.what, rule.how) == (Span(4, 2), Taylor(1))
    assert rule.when.change.probe == PrefixResidual(4) and rule.when.max_consecutive == 3
    assert DBCache().policy("toy", 50).rules[0].what == Span(1)


def test_step_masks() -> None:
    """As published for 28 steps; stretched elsewhere, with both ends in place."""
    assert (
        mask_for("slow", 28)
        == "CCCCCCCC" + "s" + "CCC" + "ss" + "CCC" + "ss" + "CC" + "ss" + "C" + "sss" + "C"
    )
    assert {name: mask_for(name, 28).count("C") for name in MASKS} == {
        "slow": 18,
        "medium": 15,
        "fast": 11,
        "ultra": 8,
    }
    for name in MASKS:
        for steps in (1, 2, 7, 28, 50, 100):
            mask = mask_for(name, steps)
            assert len(mask) == steps and mask[0] == mask[-1] == "C"
        share = mask_for(name, 280).count("C") / 280
        assert share == pytest.approx(mask_for(name, 28).count("C") / 28, abs=0.05)
    assert mask_for("CsC", 5) == "CCsCC" or mask_for("CsC", 5) == "CssCC" or mask_for("CsC", 5) == "CsssC"


def test_masks_are_dynamic_or_static() -> None:
    (rule,) = DBCache(mask="medium").policy("wan", 28).rules
    assert isinstance(rule.when, Below) and rule.when.mask == mask_for("medium", 28)
    (rule,) = DBCache(mask="fast", static=True, warmup=10).policy("wan", 28).rules
    assert rule.when == Mask("CCCCCCCCCC" + mask_for("fast", 28)[10:])
    with pytest.raises(ValueError, match="dbcache.static: given True, allowed: True only with a mask"):
        DBCache(static=True)
    with pytest.raises(ValueError, match="dbcache.mask: given 'fats'"):
        DBCache(mask="fats")


# ------------------------------------------------------------------ PAB, TaylorSeer, EasyCache


def test_pab_on_open_sora() -> None:
    """A made-up run of 30: attention inside (450, 930), by the counter; MLPs after three timesteps."""
    times = [1000.0 - 20 * k for k in range(30)]
    found = computed(PAB().policy("opensora", 30), 30, times)
    inside = [k for k, time in enumerate(times, start=1) if 450 < time < 930]
    assert inside == list(range(5, 29))
    outside = [1, 2, 3, 4, 29, 30]
    for kind, period in (("spatial", 2), ("temporal", 4), ("cross", 6)):
        keys = [k for k in inside if (k - 1) % period == 0]
        assert found[f"attention[{kind}]"] == sorted(keys + outside)
    # nearest to 864, 788 and 676: evaluations 8 (860), 12 (780; 11 is 800) and 17 (680)
    skipped = set(range(1, 31)) - set(found["mlp[0:9]"])
    assert skipped == {9, 10, 13, 14, 18, 19}


def test_pab_rules_of_each_model() -> None:
    sites = {rule.what for rule in PAB().policy("cogvideox", 50).rules}
    assert sites == {Attention(("joint",))}
    sites = {rule.what for rule in PAB().policy("opensora-plan", 150).rules}
    assert sites == {Attention(("spatial",)), Attention(("temporal",)), Attention(("cross",)), Mlp(last=13)}
    assert not any(isinstance(rule.what, Mlp) for rule in PAB(mlp=False).policy("latte", 50).rules)
    assert PAB().policy("nobody's", 50).is_partial
    periods = {rule.label: rule.when.period for rule in PAB(stretch=1.5, mlp=False).policy("latte", 50).rules}
    assert periods == {"attention[spatial]": 3, "attention[temporal]": 4, "attention[cross]": 9}


def test_taylorseer_computes_where_the_defaults_of_diffusers_do() -> None:
    """0, 1, 2, 4, 9, 14 ... counted from 0."""
    found = computed(TaylorSeer().policy("wan", 20), 20)
    assert set(found) == {"attention", "attention[cross]", "mlp"}
    assert all(keys == [1, 2, 3, 5, 10, 15, 20] for keys in found.values())
    found = computed(TaylorSeer(interval=3).policy("wan", 14), 14)
    assert found["mlp"] == [1, 2, 3, 5, 8, 11, 14]
    (rule,) = TaylorSeer(order=2, warmup=4, lite=True).policy("wan", 20).rules
    assert (rule.what, rule.how) == (Output(), Taylor(2))
    with pytest.raises(
        ValueError, match="taylorseer.warmup: given 2, allowed: more evaluations than order=2"
    ):
        TaylorSeer(order=2, warmup=2)


def test_easycache_constants() -> None:
    (rule,) = EasyCache().policy("wan", 50).rules
    assert (rule.what, rule.how, rule.when) == (Output("latent"), Hold(), PredictedChange(0.05, 7))
    assert EasyCache(0.1).policy("latte", 30).rules[0].when == PredictedChange(0.1, 4)
    assert EasyCache(warmup=0.0).policy("latte", 30).rules[0].when.num_first == 2


def test_dicache_constants() -> None:
    (rule,) = DiCache().policy("wan", 50).rules
    assert rule.what == Span(1) and isinstance(rule.when, Accumulate) and rule.when.num_first == 10
    assert rule.when.change.probe == SpanInput() and rule.when.minus.probe == StackInput()
    assert [signal.name for signal in rule.signals] == ["distance", "input", "progress"]
    (rule,) = DiCache(0.4, depth=2, is_relative=False).policy("wan", 50).rules
    assert rule.what == Span(2) and rule.when.minus is None
    assert rule.how.weight.progress.probe == PrefixResidual(2)


def test_seacache_constants() -> None:
    (rule,) = SeaCache().policy("wan", 50).rules
    assert (rule.what, rule.how) == (Span(), Taylor(1)) and isinstance(rule.when, Accumulate)
    assert rule.when.change.probe == FilteredLatent(3.0) and rule.when.change.since == "previous"
    assert (rule.when.threshold, rule.when.num_first, rule.when.num_last) == (0.25, 1, 1)
    assert rule.when.max_consecutive == 2
    assert SeaCache(max_consecutive=None).policy("wan", 50).rules[0].when.max_consecutive is None


# ------------------------------------------------------------------ CFG-Cache beside a method


@pytest.mark.parametrize("name", [n for n in METHODS if n.endswith("+cfg") and n != "static+cfg"])
def test_cfg_cache_beside_any_method(name: str) -> None:
    policy = build(name).policy("toy", 50)
    alone = build(name.removesuffix("+cfg")).policy("toy", 50)
    assert policy.name == f"{alone.name}+cfg"
    assert policy.rules[0] == build("fastercache", attention=False).policy("toy", 50).rules[0]
    assert isinstance(policy.rules[0].what, Branch)
    assert [rule.what for rule in policy.rules[1:]] == [rule.what for rule in alone.rules]
    assert all(rule.max_lag == 0 for rule in policy.rules[1:])
    short = build(name).policy("toy", 8)
    assert len(short.rules) == len(alone.rules) and any("CFG-Cache needs" in note for note in short.notes)


def test_a_full_evaluation_waits_for_no_laggard() -> None:
    """Where the unconditional branch was left out, its features are older: the next full one computes."""
    policy = TaylorSeer(interval=4, lite=True, cfg=True).policy("wan", 30)
    planner = Planner(policy, ("uncond", "cond"), 30)
    plans, _ = planner.look_ahead(1, planner.start(), {})
    seen: dict[str, int] = {}
    for k, plan in plans.items():
        step = plan.steps["output"]
        if step.action == "skip":
            assert len({seen[branch] for branch in plan.active}) == 1, k
        else:
            seen |= dict.fromkeys(plan.active, k)
    late = [k for k, plan in plans.items() if "behind cond" in plan.steps["output"].reason]
    assert late and all(len(plans[k].active) == 2 for k in late)


# ------------------------------------------------------------------ bad values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TeaCache(preset="late"), "unknown teacache preset 'late'; did you mean latte"),
        (lambda: TeaCache(-1.0), "teacache.threshold: given -1.0"),
        (lambda: FBCache(-0.1), "fbcache.threshold: given -0.1"),
        (lambda: FBCache(max_consecutive=0), "fbcache.max_consecutive: given 0"),
        (lambda: DBCache(first=-1), "dbcache.first: given -1"),
        (lambda: DBCache(warmup=0), "dbcache.warmup: given 0"),
        (lambda: DBCache(order=9), "Taylor.order: given 9"),
        (lambda: DiCache(-0.1), "dicache.threshold: given -0.1"),
        (lambda: DiCache(depth=0), "dicache.depth: given 0"),
        (lambda: PAB("x"), "unknown pab preset 'x'"),
        (lambda: PAB(stretch=0), "pab.stretch: given 0"),
        (lambda: TaylorSeer(interval=1), "taylorseer.interval: given 1"),
        (lambda: TaylorSeer(order=0), "taylorseer.order: given 0"),
        (lambda: EasyCache(-0.1), "easycache.threshold: given -0.1"),
        (lambda: EasyCache(warmup=2.0), "easycache.warmup: given 2.0"),
        (lambda: SeaCache(-0.1), "seacache.threshold: given -0.1"),
        (lambda: SeaCache(order=2), "seacache.order: given 2"),
        (lambda: SeaCache(max_consecutive=0), "seacache.max_consecutive: given 0"),
        (lambda: SeaCache(power=0.0), "seacache.power: given 0.0"),
        (lambda: FilteredLatent(-1.0), "FilteredLatent.power: given -1.0"),
        (lambda: build("dbcache", mask=3), "dbcache.mask: given 3"),
    ],
)
def test_bad_values_are_named(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
