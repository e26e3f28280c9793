"""What a method makes of a run: the rehearsal against real runs, and against known figures."""

from dataclasses import replace

import pytest
import torch
from torch.utils._pytree import tree_map

import keystep
from keystep import AdaCache, Auto, FasterCache, Policy, Rule
from keystep.how import Hold
from keystep.metrics.flops import FlopCounter
from keystep.models.catalogue import import_name
from keystep.plan import Blueprint, Video, plan_method, plan_model
from keystep.plan.blueprint import every_fourth
from keystep.plan.cost import Cost
from keystep.plan.method import bounds, rehearse
from keystep.plan.released import BLUEPRINTS
from keystep.what import Mlp, PrefixResidual, Span
from keystep.when import Below, Every, RelativeChange
from tests.matrix import ZOO, pipe_of
from tests.plan.test_plan_model import workload

STEPS = 12
TEXT_WIDTH = 20
TINY = {
    "latte": Blueprint(
        "diffusers:LatteTransformer3DModel", "num_layers", Video(64, 64, 3), STEPS, int, 7,
        {
            **BLUEPRINTS["latte"].config, "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 8,
            "cross_attention_dim": 16, "sample_size": 8, "caption_channels": TEXT_WIDTH,
        },
        length="video_length", text_width=TEXT_WIDTH,
    ),
    "cogvideox-5b": replace(
        BLUEPRINTS["cogvideox-5b"], video=Video(64, 64, 9), num_text_tokens=7, text_width=TEXT_WIDTH,
        config={
            "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4,
            "out_channels": 4, "text_embed_dim": TEXT_WIDTH, "max_text_seq_length": 7, "sample_width": 8,
            "sample_height": 8, "sample_frames": 9, "use_rotary_positional_embeddings": True,
        },
    ),
    "wan-2.1-1.3b": Blueprint(
        "diffusers:WanTransformer3DModel", "num_layers", Video(64, 64, 9), STEPS, every_fourth, 7,
        {
            "num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 4,
            "out_channels": 4, "text_dim": TEXT_WIDTH, "freq_dim": 16, "ffn_dim": 32, "rope_max_seq_len": 32,
        },
        text_width=TEXT_WIDTH,
    ),
}  # fmt: skip
MLPS = Policy((Rule(Mlp(first=1, last=2), Every(2, start=3), Hold()),), "mlps of some blocks")
FIRST_BLOCK = Policy((Rule(Span(1), Below(0.1, RelativeChange(PrefixResidual(1))), Hold()),), "first block")


def label(value):
    return getattr(value, "name", type(value).__name__) if not isinstance(value, str) else value


def tiny(name):
    blueprint = TINY[name]
    job = workload(name)
    return replace(job, blueprint=blueprint, video=blueprint.video, num_steps=STEPS, dtype=torch.float32)


def run_for_real(job, policy):
    """FLOPs, skips and peak bytes of a run on the CPU with random weights."""
    torch.manual_seed(0)
    transformer = import_name(job.blueprint.transformer)(**job.config).eval()
    calls = tree_map(lambda x: torch.randn(x.shape, dtype=x.dtype) if x.is_meta else x, job.make_calls())
    with (
        torch.no_grad(),
        keystep.accelerate(transformer, policy, spec=job.spec) as session,
        FlopCounter() as counter,
    ):
        session.begin(job.num_evaluations, times=range(job.num_evaluations, 0, -1))
        for _ in range(job.num_evaluations):
            for inputs in calls:
                transformer(**inputs)
            session.step()
    trace = session.trace
    return counter.total, [row.skipped for row in trace.rows], trace.peak_cache_bytes


@pytest.mark.parametrize(
    ("name", "method"), [*((name, FasterCache()) for name in TINY), ("latte", MLPS)], ids=label
)
def test_schedules_cost_in_reality_what_was_planned(name, method):
    job = tiny(name)
    policy = method.policy(job.spec.name, job.num_evaluations)
    flops, skipped, peak_bytes = run_for_real(job, policy)
    costs = rehearse(job, policy, job.num_evaluations)
    assert [cost.skipped for cost in costs] == skipped
    assert any(skipped)
    assert sum(cost.flops for cost in costs) == flops
    assert max(cost.cache_bytes for cost in costs) == peak_bytes


@pytest.mark.parametrize(
    ("name", "method"),
    [("latte", AdaCache(moreg=True)), ("wan-2.1-1.3b", AdaCache()), ("cogvideox-5b", FIRST_BLOCK)],
    ids=label,
)
def test_adaptive_methods_stay_between_their_bounds(name, method):
    job = tiny(name)
    plain = plan_model(job)
    plan = plan_method(job, method, plain.cost)
    policy = method.policy(job.spec.name, job.num_evaluations)
    flops, skipped, peak_bytes = run_for_real(job, policy)  # same inputs throughout: nothing ever changes
    num_full = sum(not rules for rules in skipped)
    (least, most), (low, high) = plan.computed, plan.compute
    assert plan.is_adaptive
    assert least == num_full < most == job.num_evaluations
    assert low == flops / (plain.cost.flops * job.num_evaluations) < high == 1
    assert plan.cache_bytes == peak_bytes


def test_auto_is_planned_outside_of_the_model():
    job = tiny("wan-2.1-1.3b")
    plain = plan_model(job).cost
    plan = plan_method(job, Auto(speedup=2), plain)
    assert plan.computed == (STEPS // 2, STEPS // 2) and plan.compute == (0.5, 0.5)
    assert plan.skips == {"guided": (STEPS // 2, STEPS // 2)} and not plan.is_adaptive
    (rows,) = {inputs["hidden_states"].shape for inputs in job.make_calls()}
    assert plan.cache_bytes == 3 * rows.numel() * 4  # two outputs, and what forecasts put into the latent
    assert plan_method(job, Auto(speedup=2, correct=False), plain).cache_bytes == 2 * rows.numel() * 4


def test_a_tolerance_lies_between_few_and_all_evaluations():
    job = tiny("latte")
    plain = plan_model(job).cost
    plan = plan_method(job, Auto(tolerance=0.05), plain)
    (least, most), (low, high) = plan.computed, plan.compute
    assert plan.is_adaptive and 2 <= least < most == STEPS
    assert low == least / STEPS and high == 1


def test_a_refined_run_computes_as_much_as_it_is_asked_for():
    job = tiny("wan-2.1-1.3b")
    plan = plan_method(job, Auto(speedup=2, quality="converged"), plan_model(job).cost)
    assert plan.computed == (STEPS // 2, STEPS // 2) and plan.compute == (0.5, 0.5)
    assert plan.skips == {"guided": (4 * STEPS - STEPS // 2,) * 2}


def test_auto_holds_in_reality_what_was_planned():
    wan = next(zoo for zoo in ZOO if zoo.name == "wan")
    pipe = pipe_of(wan)
    with keystep.accelerate(pipe, "auto") as session:
        latents = wan.sample(pipe, steps=STEPS)
    trace = session.trace
    job = tiny("wan-2.1-1.3b")
    plan = plan_method(job, Auto(), Cost(1))
    (rows,) = {inputs["hidden_states"].shape for inputs in job.make_calls()}
    assert plan.computed[0] == len(trace.key_steps)
    damping = 3 * latents.shape[1] * 4  # of two entries and a coming one; a value for each channel
    ratio = plan.cache_bytes / rows.numel()
    assert trace.peak_cache_bytes == pytest.approx(ratio * latents.numel(), abs=damping)


def test_a_schedule_has_no_bounds_but_itself():
    policy = FasterCache().policy("latte", 50)
    assert bounds(policy, 50) == [policy]


# ---------------------------------------------------------------- figures of the papers' models

SIZE_720P = Video(720, 1280, 51)
HIDDEN_720P = 54_000 * 1152 * 2  # bytes of one branch in bfloat16


def test_adacache_holds_a_fiftieth_of_its_reference_at_720p():
    job = workload("opensora-1.2", SIZE_720P)
    plan = plan_method(job, AdaCache(), Cost(1))
    assert plan.cache_bytes == 3 * HIDDEN_720P  # the stack's residual of both branches, what is measured
    reference = 2 * 56 * 2 * HIDDEN_720P  # two residuals of each of 56 blocks, both branches
    assert reference == pytest.approx(27.9e9, rel=1e-2)
    assert plan.cache_bytes <= reference / 50


def test_fastercache_holds_at_most_what_its_reference_does():
    job = workload("opensora-1.2", Video(480, 854, 192))
    assert job.blueprint.latent_of(job.video) == (57, 60, 106)
    plan = plan_method(job, FasterCache(), Cost(1))
    reference = 2 * 56 * 2 * 57 * 1590 * 1152 * 2  # two entries of 56 attentions, both branches
    assert reference / 2**30 == pytest.approx(43.6, abs=0.1)
    cfg = 2 * 2 * 8 * 57 * 60 * 106 * 4  # low and high band of the branches' difference, float32 and complex
    assert plan.cache_bytes <= reference + cfg
    assert plan.skips == {"branch[uncond]": (15, 15), "attention": (10, 10)}


def test_pndm_has_more_evaluations_than_steps():
    assert workload("opensora-plan-1.1").num_evaluations == 159
