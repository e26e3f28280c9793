"""The planner: pure Python plans, and what has to be kept for them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from keystep import Policy, Rule
from keystep.engine.planner import Planner
from keystep.how import FrequencyBands, Hold, Taylor
from keystep.what import Attention, Branch, PrefixResidual, Span
from keystep.when import Below, Codebook, Mask, RelativeChange
from tests.counts import count_skipped

BOTH = ("uncond", "cond")


def look(policy: Policy, steps: int, branches: tuple[str, ...] = BOTH) -> tuple[dict, dict]:
    planner = Planner(policy, branches, steps)
    return planner.look_ahead(1, planner.start(), {})


def test_outer_sites_come_first() -> None:
    attention = Rule(Attention(), Mask("CCs"), Hold())
    span, branch = Rule(Span(), Mask("CCs"), Hold()), Rule(Branch(), Mask("CCs"), FrequencyBands())
    planner = Planner(Policy((attention, span, branch)), BOTH, 3)
    assert [rule.label for rule in planner.rules] == ["branch[uncond]", "span", "attention"]
    plans, _ = planner.look_ahead(1, planner.start(), {})
    assert plans[3].active == ("cond",)
    assert not plans[3].steps["attention"].is_visited and not plans[3].computes("attention")
    assert plans[2].computes("attention")


def test_rules_on_absent_branches_stand_aside() -> None:
    planner = Planner(Policy((Rule(Branch(), Mask("Cs"), FrequencyBands()),)), ("cond",), 2)
    assert planner.rules == []


def test_fallbacks_say_why() -> None:
    policy = Policy((Rule(Attention(), Mask("Css"), Taylor(1), max_age=1),))
    plans, _ = look(policy, 3)
    assert plans[2].steps["attention"].reason == "fallback: 1 of 2 entries for uncond"
    assert plans[3].steps["attention"].action == "skip"
    policy = Policy((Rule(Attention(), Mask("CsssC"), Hold(), max_age=2),))
    plans, _ = look(policy, 5)
    assert plans[4].steps["attention"].reason.startswith("fallback: stale, uncond is 3")
    planner = Planner(policy, BOTH, 5)
    assert planner.plan(6, planner.start(), {}).steps["attention"].reason == "beyond the schedule"


def test_last_use() -> None:
    """Entry 1 serves 2 and 3; entry 4 of the unconditional branch serves nobody: 5 is conditional only."""
    policy = Policy(
        (Rule(Branch(), Mask("CCCCsC"), FrequencyBands()), Rule(Attention(), Mask("CssCsC"), Hold()))
    )
    _, last_use = look(policy, 6)
    assert last_use == {
        ("branch[uncond]", "uncond", 4): 5,
        ("attention", "uncond", 1): 3,
        ("attention", "cond", 1): 3,
        ("attention", "cond", 4): 5,
    }


def test_unknown_futures_keep_everything() -> None:
    measured = Rule(Span(), Codebook(((0.1, 2),)), Hold())
    inner, outer = Rule(Attention(), Mask("CCCC"), Hold()), Rule(Branch(), Mask("CCCC"), FrequencyBands())
    planner = Planner(Policy((measured, inner, outer)), BOTH, 4)
    assert planner.keeps_all(measured) and planner.keeps_all(inner) and not planner.keeps_all(outer)
    asking = Rule(Span(1), Below(0.1, RelativeChange(PrefixResidual())), Hold())
    planner = Planner(Policy((asking,)), BOTH, 4)
    assert planner.plan(2, planner.start(), {}).steps["span[1:]"].reason.startswith("fallback")
    held = {("span[1:]", branch): (1,) for branch in BOTH}
    assert planner.plan(2, planner.start(), held).steps["span[1:]"].action == "ask"


@given(st.text("Cs", min_size=1, max_size=20), st.text("Cs", min_size=20, max_size=20), st.integers(1, 4))
def test_no_skip_without_fresh_entries_for_every_active_branch(cfg: str, attention: str, age: int) -> None:
    """Whatever the schedules say: every skip of every active branch has an entry that is young enough."""
    steps = len(cfg)
    policy = Policy(
        (
            Rule(Branch(), Mask(cfg), FrequencyBands()),
            Rule(Attention(), Mask(attention[:steps]), Hold(), max_age=age),
        )
    )
    plans, last_use = look(policy, steps)
    computed: dict[str, int] = {}
    skipped = 0
    for k, plan in plans.items():
        assert "cond" in plan.active
        if plan.computes("attention"):
            computed.update(dict.fromkeys(plan.active, k))
        for branch in () if plan.computes("attention") else plan.active:
            assert 1 <= k - computed[branch] <= age
            assert last_use["attention", branch, computed[branch]] >= k
        skipped += 2 - len(plan.active) * plan.computes("attention")
    assert count_skipped(policy, steps, "attention") == skipped
    assert count_skipped(policy, steps, "branch[uncond]") == sum(len(p.active) == 1 for p in plans.values())
