"""Runs on several GPUs, against figures worked out by hand."""

from dataclasses import replace

import pytest
import torch

from keystep import AdaCache, FasterCache
from keystep.plan import LINKS, Layout, Link, Machine, Scaling, plan_method, plan_model
from keystep.plan.cost import Cost
from keystep.plan.hardware import find_link, find_peak
from tests.plan.test_plan_method import tiny
from tests.plan.test_plan_model import shallow, workload

PEAK, BANDWIDTH, LATENCY = 1e12, 1e9, 1e-3
MACHINE = Machine(PEAK, Link(BANDWIDTH, LATENCY), efficiency=0.5, other=3.0)


def scaling(job):
    return Scaling(job, plan_model(job), MACHINE)


def plain(scales, layout):
    return scales.forecast([scales.model.cost] * scales.workload.num_evaluations, layout)


# Two blocks (Latte: of each kind) at the released size: bytes a GPU of four sends in one evaluation.
FOURTH = 3 / 16  # of the values of a tensor in all: its quarter, less the quarter of that it keeps
SENT = {
    # rows of frames there and back; latents of the first GPU to three others; outputs of twice the channels
    "latte": 2 * (2 * 2 * 16 * 1024 * 1152 * 2 * FOURTH + 2 * 16 * 4 * 64 * 64 * (3 + 2 * 3 / 4)),
    # query, key, value and back, of text and video together
    "cogvideox-2b": 2 * (4 * 2 * (13 * 1350 + 226) * 1920 * 2 * FOURTH + 2 * 13 * 16 * 60 * 90 * (3 + 3 / 4)),
    "wan-2.1-1.3b": 2 * (4 * 2 * 21 * 1560 * 1536 * 2 * FOURTH + 2 * 21 * 16 * 60 * 104 * (3 + 3 / 4)),
}


@pytest.mark.parametrize("name", SENT)
def test_what_a_gpu_sends(name):
    scales = scaling(shallow(workload(name)))
    forecast = plain(scales, Layout(4))
    assert forecast.sent_bytes == pytest.approx(SENT[name], rel=1e-12)
    # two for each of two blocks, latents, output; Wan calls the model once for each branch
    assert forecast.collectives == (2 * 2 + 2) * (2 if name == "wan-2.1-1.3b" else 1)


@pytest.mark.parametrize("name", SENT)
def test_each_branch_on_gpus_of_its_own(name):
    """Half of everything, and one branch's latents and output on top."""
    scales = scaling(shallow(workload(name)))
    pair, alone, four = (plain(scales, layout) for layout in (Layout(2), Layout(1, True), Layout(2, True)))
    values = scales.model.cost.values
    assert alone.sent_bytes == 2 * (values["latent"] + values["output"]) / 2
    assert alone.collectives == 2
    assert four.sent_bytes == pytest.approx(pair.sent_bytes / 2 + alone.sent_bytes)
    separate = name == "wan-2.1-1.3b"
    assert four.collectives == pair.collectives / (2 if separate else 1) + 2
    assert (alone.flops, four.flops) == (pair.flops, pair.flops / 2)


def test_time_is_work_over_speed_and_what_is_sent_over_the_links():
    scales = scaling(shallow(workload("latte")))
    forecast, num_evaluations = plain(scales, Layout(2)), scales.workload.num_evaluations
    assert forecast.flops == scales.model.cost.flops / 2
    assert forecast.compute_s == forecast.flops / (PEAK / 2)
    assert forecast.exchange_s == pytest.approx(
        forecast.collectives * LATENCY + forecast.sent_bytes / BANDWIDTH
    )
    evaluation = forecast.compute_s + forecast.exchange_s
    assert forecast.run_s == pytest.approx(num_evaluations * evaluation + 3.0)


def test_one_gpu_sends_nothing():
    forecast = plain(scaling(shallow(workload("vchitect-2.0"))), Layout(1))
    assert (forecast.sent_bytes, forecast.collectives, forecast.exchange_s) == (0, 0, 0)


def test_what_does_not_divide_makes_the_others_wait():
    scales = scaling(shallow(workload("opensora-1.2")))
    assert scales.model.tokens_per_frame == 1590  # 198.75 each: some have 199
    assert plain(scales, Layout(8)).flops == pytest.approx(scales.model.cost.flops * 199 / 1590)


def test_skipped_work_sends_nothing():
    job = replace(tiny("latte"), num_steps=20)
    scales = scaling(job)
    costs = {cost.skipped: cost for cost in plan_method(job, FasterCache(), scales.model.cost).runs[0]}
    full, part = costs[()], costs["branch[uncond]",]
    reused = costs["branch[uncond]", "attention"]
    assert (full.flops, full.calls, full.values) == (
        scales.model.cost.flops,
        scales.model.cost.calls,
        scales.model.cost.values,
    )
    assert {key: 2 * count for key, count in part.values.items()} == full.values
    assert (reused.calls["frame"], reused.values["frame"]) == (0, 0)
    assert reused.values["text"] == part.values["text"]
    sent = [scales.forecast([cost], Layout(2)).sent_bytes for cost in (full, part, reused)]
    frames = job.dtype.itemsize * 2 * part.values["frame"] / 4
    assert sent == [2 * sent[1], sent[1], sent[1] - frames]


def test_a_skipped_stack_sends_latents_and_outputs_only():
    job = tiny("wan-2.1-1.3b")
    scales = scaling(job)
    skipped = next(cost for cost in plan_method(job, AdaCache(), scales.model.cost).runs[0] if cost.skipped)
    assert set(+skipped.calls) == {"latent", "output"}
    latents = job.dtype.itemsize * scales.model.cost.values["latent"]
    assert scales.forecast([skipped], Layout(2)).sent_bytes == latents * (1 + 1 / 2)


@pytest.mark.parametrize(
    ("name", "reach", "tokens", "width"),
    [("latte", "frame", 3 * 16, 16), ("cogvideox-5b", "video", 3 * 16 + 7, 32)],
)
def test_attention_is_told_by_how_far_it_looks(name, reach, tokens, width):
    num_blocks, branches = 3, 2
    cost = plan_model(tiny(name)).cost
    assert (cost.calls[reach], cost.values[reach]) == (num_blocks, num_blocks * branches * tokens * width)
    assert cost.calls["time"] == cost.calls["text"] == (num_blocks if name == "latte" else 0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: find_peak("a10", torch.bfloat16), "unknown GPU 'a10'.*a100"),
        (lambda: find_peak("a100", torch.float32), "dtype: given 'float32', allowed: bfloat16 or float16"),
        (lambda: find_link("nvlink"), "unknown link 'nvlink'.*nvlink3"),
        (lambda: Link(0, 0), "bandwidth: given 0"),
        (lambda: Link(1, -1), "latency: given -1"),
        (lambda: Machine(0, LINKS["pcie4"]), "peak: given 0"),
        (lambda: Machine(1, LINKS["pcie4"], efficiency=1.5), "efficiency: given 1.5"),
        (lambda: Machine(1, LINKS["pcie4"], other=-1), "other: given -1"),
        (
            lambda: Scaling(tiny("latte"), plan_model(tiny("latte")), MACHINE).layouts(17),
            "gpus: given 17.*16",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_odd_numbers_of_gpus_cannot_split_guidance():
    scales = scaling(tiny("latte"))
    assert scales.layouts(3) == [Layout(3)]
    assert scales.layouts(4) == [Layout(4), Layout(2, True)]
    assert [layout.name for layout in (Layout(1), *scales.layouts(2), Layout(4, True))] == [
        "one GPU", "ulysses 2", "cfg 2", "cfg 2 x ulysses 4"
    ]  # fmt: skip


def test_costs_of_deep_models_follow_from_shallow_ones():
    a = Cost(10, 1, ("x",), values=plan_model(shallow(workload("latte"))).cost.values)
    b = replace(a, flops=13, cache_bytes=3)
    assert a.grow(b, 4) == replace(a, flops=22, cache_bytes=9)
