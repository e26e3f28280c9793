"""Branches, samples and sites never mix: an analytic model whose features tell where they come from."""

from __future__ import annotations

import itertools

import pytest
import torch

import keystep
from keystep import Policy, Rule
from keystep.how import FrequencyBands, Hold, Linear, Spacing, Taylor
from keystep.what import Attention, Branch, Output, Span
from keystep.when import Every, Mask
from tests.laws import fake

LAYOUTS = ["batched:uncond,cond", "batched:cond,uncond", "separate:cond,uncond", "separate:uncond,cond"]
STEPS = 24
TIMES = [1000.0 * (1 - k / STEPS) ** 1.5 for k in range(STEPS)]
CFG = Rule(Branch(), Every(4, start=5, phase=1), FrequencyBands())
REUSE = Rule(Attention(), Every(3, start=4), Linear(Spacing(1.0)), max_age=2)
POLICIES = {
    "attention": Policy((REUSE,)),
    "attention-any-age": Policy((Rule(Attention(), Every(3, start=4), Hold()),)),
    "span": Policy((Rule(Span(), Every(3, start=4), Linear(Spacing(1.0))),)),
    "prefix": Policy((Rule(Span(1), Every(3, start=4), Taylor(1, "time")),)),
    "middle": Policy((Rule(Span(1, 1), Every(3, start=4), Taylor(1, "time")),)),
    "output": Policy((Rule(Output(), Every(3, start=4), Taylor(1, "time")),)),
    "output-latent": Policy((Rule(Output("latent"), Every(3, start=4), Linear(Spacing(1.0))),)),
    "span+attention": Policy((Rule(Span(), Every(4, start=6), Hold()), REUSE)),
    "output+span+attention": Policy(
        (Rule(Output(), Every(4, start=6), Hold()), Rule(Span(), Every(3, start=5), Hold()), REUSE)
    ),
    "cfg": Policy((CFG,)),
    "cfg+attention": Policy((CFG, REUSE)),
    "cfg+attention-any-age": Policy((CFG, Rule(Attention(), Every(3, start=4), Linear(Spacing(1.0))))),
    "cfg+output": Policy((CFG, Rule(Output(), Every(3, start=4), Taylor(1, "time"), max_lag=0))),
    "cfg+span": Policy((CFG, Rule(Span(), Every(3, start=4), Taylor(1, "time"), max_lag=0))),
    "cfg+span+attention": Policy((CFG, Rule(Span(), Every(5, start=6), Hold()), REUSE)),
}


def run(
    feature: fake.Feature, policy: Policy, layout: str, batch: int, tolerance: float, guided: bool = True
) -> keystep.Trace:
    """Drive the fake; every value that any block or the caller sees must be the plain model's."""
    model = fake.Fake(feature)
    order = tuple(layout.partition(":")[2].split(",")) if guided else ("cond",)
    with keystep.accelerate(model, policy, spec=fake.SPEC, guidance=layout) as session:
        session.begin(STEPS, guided, TIMES)
        for evaluation, time in enumerate(TIMES, start=1):
            for block in model.blocks:
                block.seen.clear()
            outputs = fake.evaluate(model, layout, batch, time, guided)
            session.step()
            where = f"evaluation {evaluation}: {session.trace.rows[-1].decisions}"
            for branch in order:
                wanted = fake.expected(feature, branch, batch, time)[:, None, None, None, None]
                difference = (outputs[branch] - wanted).abs().max().item()
                assert difference <= tolerance * wanted.abs().max(), f"{branch} at {where}"
            check_blocks(
                model, feature, session.trace.rows[-1].branches, layout, batch, time, tolerance, where
            )
    return session.trace


def check_blocks(
    model: fake.Fake,
    feature: fake.Feature,
    active: tuple[str, ...],
    layout: str,
    batch: int,
    time: float,
    tolerance: float,
    where: str,
) -> None:
    """Rows that the blocks really got, computed or predicted, in the order of the calls."""
    for block in model.blocks:
        seen = [row for value in block.seen for row in value.flatten(1).mean(1).tolist()]
        texts = [fake.value_of(branch, sample) for branch in active for sample in range(batch)]
        wanted = [
            feature(torch.tensor(text), torch.tensor(time), block.attention.index).item() for text in texts
        ]
        if seen:
            assert seen == pytest.approx(wanted, abs=tolerance * max(wanted)), f"{layout} {where}"


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_constant_features_stay_pure(layout: str, name: str) -> None:
    if layout == "separate:uncond,cond" and "cfg" in name:
        pytest.skip("CFG-Cache refuses separate calls with the unconditional one first")
    for batch in (1, 2, 3):
        trace = run(fake.constant, POLICIES[name], layout, batch, 2e-6)
        assert all(trace.count_skips(label) > 0 for label in trace.rows[0].decisions)


@pytest.mark.parametrize("name", ["attention", "span", "prefix", "middle", "output", "output-latent"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_linear_drift_is_reproduced_exactly(layout: str, name: str) -> None:
    """Linear(Spacing(1.0)) and Taylor(1) lose nothing on features that drift linearly in time."""
    trace = run(fake.drifting, POLICIES[name], layout, 2, 2e-5)
    assert len(trace.key_steps) < 14


def test_drift_is_exact_also_while_the_unconditional_branch_is_rebuilt() -> None:
    """The conditional branch is computed at all times and extrapolates from its own history only."""
    model, batch = fake.Fake(fake.drifting), 2
    with keystep.accelerate(model, POLICIES["cfg+attention"], spec=fake.SPEC) as session:
        session.begin(STEPS, True, TIMES)
        for time in TIMES:
            out = fake.evaluate(model, "batched:uncond,cond", batch, time)["cond"]
            session.step()
            wanted = fake.expected(fake.drifting, "cond", batch, time)
            torch.testing.assert_close(out[:, 0, 0, 0, 0], wanted, rtol=2e-5, atol=0)
    assert any("attention" in row.skipped and len(row.branches) == 1 for row in session.trace.rows)


def test_guidance_off_keeps_all_samples() -> None:
    """A batch is not cut in half when there is only one branch."""
    for batch, policy in itertools.product((1, 2, 3), (POLICIES["cfg+attention"], POLICIES["span"])):
        trace = run(fake.constant, policy, "batched:uncond,cond", batch, 2e-6, guided=False)
        assert all(row.branches == ("cond",) for row in trace.rows)
        if policy is POLICIES["cfg+attention"]:
            assert any("stands aside" in note for note in trace.notes)
            assert trace.count_skips("attention") > 0


def test_stale_history_of_one_branch_forces_both_to_compute() -> None:
    """Uncond was last computed at 3 when evaluation 6 is full again: too old for max_age=2."""
    letters = "CCCssCCCCCCC" + "C" * 12
    cfg = Rule(Branch(), Mask(letters), FrequencyBands())
    reuse = Rule(Attention(), Mask("CCCCCsCsCsCs" + "C" * 12), Hold(), max_age=2)
    trace = run(fake.constant, Policy((cfg, reuse)), "batched:uncond,cond", 2, 2e-6)
    decision = trace.rows[5].decisions["attention"]
    assert decision.action == "compute"
    assert decision.reason.startswith("fallback: stale, uncond")
    assert [row.evaluation for row in trace.rows if "attention" in row.skipped] == [8, 10, 12]
    relaxed = Rule(Attention(), Mask("CCCCCsCsCsCs" + "C" * 12), Hold(), max_age=3)
    trace = run(fake.constant, Policy((cfg, relaxed)), "batched:uncond,cond", 2, 2e-6)
    assert [row.evaluation for row in trace.rows if "attention" in row.skipped] == [6, 8, 10, 12]
