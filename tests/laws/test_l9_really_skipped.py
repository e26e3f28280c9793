"""L9: what the trace calls skipped did not run, counted by hooks that know nothing of keystep."""

from __future__ import annotations

from typing import Any

import pytest

import keystep
from keystep import FasterCache, ModelSpec, Policy, Rule
from keystep.how import FrequencyBands, Hold, Linear
from keystep.models.registry import SPECS
from keystep.what import Attention, Branch, Mlp, Output, PrefixResidual, Site, Span
from keystep.when import Below, Every, RelativeChange
from tests.counts import count_skipped
from tests.laws.instruments import Counters, first_blocks
from tests.matrix import METHODS, pairs, pipe_of, scale_of
from tests.zoo import COGVIDEOX, LATTE, STEPS, WAN, Zoo


def count(zoo: Zoo, method: object, **arguments: object) -> tuple[list[dict[str, int]], keystep.Trace]:
    """Rows through Linear layers by evaluation, in units of one branch of the plain model; and the trace."""
    pipe = pipe_of(zoo)
    branches = 2 if arguments.get("scale", 4.0) > 1 else 1
    with Counters(pipe) as counters:
        zoo.sample(pipe, call={"callback_on_step_end": counters.cut}, **arguments)
        (unit, *_), counters.rows = counters.rows, []
        with keystep.accelerate(pipe, method) as session:
            zoo.sample(pipe, call={"callback_on_step_end": counters.cut}, **arguments)
        rows = [{kind: row[kind] * branches / unit[kind] for kind in unit} for row in counters.rows]
    return rows, session.trace


@pytest.mark.parametrize(("zoo", "name", "batch", "is_guided"), pairs())
def test_rows_agree_with_the_trace(zoo: Zoo, name: str, batch: int, is_guided: bool) -> None:
    rows, trace = count(zoo, METHODS[name], batch=batch, scale=scale_of(is_guided))
    spec = SPECS[trace.model]
    sites = {rule.label: rule.what for rule in METHODS[name].policy(trace.model, STEPS).rules}
    assert len(rows) == len(trace.rows) == STEPS
    for row, said in zip(rows, trace.rows, strict=True):
        active = len(said.branches)
        skipped = [sites[label] for label in said.skipped]
        whole = 0 if Output() in skipped or Output("latent") in skipped else active
        assert row["model"] == whole
        around = min([share_around(site, pipe_of(zoo)) for site in skipped], default=1.0)
        has_mlp = not any(isinstance(site, Mlp) for site in skipped)
        assert row["ff"] == pytest.approx(whole * around * has_mlp)
        assert row["attention"] == pytest.approx(whole * around * share_of_attention(skipped, spec))
    assert sum(row["attention"] for row in rows) < STEPS * (1 + is_guided) or name == "fastercache-cfg"
    assert any(said.skipped for said in trace.rows)


def share_around(site: Site, pipe: Any) -> float:
    """Part of the blocks that runs when a site is skipped."""
    if not isinstance(site, Span):
        return 1.0
    return (site.start + site.num_after) / len(first_blocks(pipe.transformer))


def share_of_attention(skipped: list[Site], spec: ModelSpec) -> float:
    """Part of the counted attention rows that runs: all kinds but cross-attention, each with as many rows."""
    kinds = [kind for kind in spec.attention if Attention().covers_kind(kind)]
    sites = [site for site in skipped if isinstance(site, Attention)]
    return sum(not any(site.covers_kind(kind) for site in sites) for kind in kinds) / len(kinds)


@pytest.mark.parametrize(("zoo", "skipped", "rebuilt"), [(LATTE, 41, 26), (COGVIDEOX, 43, 26)])
def test_native_presets_really_save_what_the_paper_counts(zoo: Zoo, skipped: int, rebuilt: int) -> None:
    rows, trace = count(zoo, FasterCache(), steps=50)
    assert 100 - sum(row["attention"] for row in rows) == skipped
    assert 100 - sum(row["model"] for row in rows) == rebuilt
    policy = FasterCache().policy(zoo.name, 50)
    assert count_skipped(policy, 50, "attention") == skipped
    assert count_skipped(policy, 50, "branch[uncond]") == rebuilt
    assert trace.count_skips("branch[uncond]") == rebuilt


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_planner_counts_equal_what_ran(zoo: Zoo) -> None:
    for method in (METHODS["fastercache"], METHODS["fastercache-attention"], METHODS["fastercache-cfg"]):
        rows, _ = count(zoo, method)
        policy = method.policy("wan" if zoo is WAN else zoo.name, STEPS)
        for rule in policy.rules:
            kind = "model" if isinstance(rule.what, Branch) else "attention"
            ran = sum(row[kind] for row in rows)
            assert count_skipped(policy, STEPS, rule.label) == 2 * STEPS - ran


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_blocks_before_the_span_always_run(zoo: Zoo) -> None:
    """A probe before the span costs its blocks (1 of 4) and no more, whichever way the decision falls."""
    policy = Policy((Rule(Span(1), Below(2.0, RelativeChange(PrefixResidual())), Hold()),))
    rows, trace = count(zoo, policy)
    assert trace.count_skips("span[1:]") > 2
    for row, said in zip(rows, trace.rows, strict=True):
        assert row["ff"] == row["attention"] == (0.5 if said.skipped else 2.0)


@pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)
def test_outer_sites_win(zoo: Zoo) -> None:
    policy = Policy(
        (
            Rule(Branch(), Every(5, start=5), FrequencyBands()),
            Rule(Span(), Every(4, start=5, phase=1), Hold()),
            Rule(Attention(), Every(2, start=3), Linear(), max_age=4),
        )
    )
    rows, trace = count(zoo, policy)
    for row, said in zip(rows, trace.rows, strict=True):
        assert row["model"] == len(said.branches) == (1 if "branch[uncond]" in said.skipped else 2)
        assert row["ff"] == (0 if "span" in said.skipped else len(said.branches))
        assert row["attention"] == (0 if "attention" in said.skipped else len(said.branches))
        if "span" in said.skipped:
            assert said.decisions["attention"].reason == "inside a skipped span"
    assert all(trace.count_skips(rule.label) > 0 for rule in policy.rules)


def test_one_kind_of_attention_alone() -> None:
    """Only the named kind is skipped; Latte's temporal half of the query projections keeps running."""
    policy = Policy((Rule(Attention(("spatial",)), Every(2, start=3), Hold()),))
    rows, trace = count(LATTE, policy)
    for row, said in zip(rows, trace.rows, strict=True):
        assert row["attention"] == (1.0 if said.skipped else 2.0)
    rows, trace = count(WAN, Policy((Rule(Attention(("cross",)), Every(2, start=3), Hold()),)))
    assert all(row["attention"] == 2.0 for row in rows), "self-attention is another kind"
    assert trace.count_skips("attention[cross]") == 7
