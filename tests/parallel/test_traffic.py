"""What `keystep plan` says that GPUs send, against what ranks count: to the byte."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from keystep import Policy, Rule
from keystep.engine.method import Method
from keystep.how import Hold
from keystep.plan import LINKS, Layout, Machine, Scaling, plan_method, plan_model
from keystep.plan.cost import Cost
from keystep.plan.workload import Workload
from keystep.what import Span
from keystep.when import Always
from tests.matrix import METHODS
from tests.parallel.guidance_work import send
from tests.parallel.launch import launch
from tests.plan.test_plan_method import tiny

SCHEDULES: dict[str, Method] = {
    "never": Policy((Rule(Span(), Always(), Hold()),), "never"),
    "attention": METHODS["fastercache-attention"],
    "branch": METHODS["fastercache"],
}


def even(name: str) -> Workload:
    """Tokens of the text divide too."""
    job = tiny(name)
    config = job.blueprint.config
    config = config | ({"max_text_seq_length": 8} if "max_text_seq_length" in config else {})
    return replace(job, blueprint=replace(job.blueprint, num_text_tokens=8, config=config), num_steps=16)


@functools.cache
def planned(name: str) -> tuple[Scaling, dict[str, tuple[Cost, ...]]]:
    job = even(name)
    scales = Scaling(job, plan_model(job), Machine(1.0, LINKS["pcie4"]))
    runs = {key: plan_method(job, each, scales.model.cost).runs[0] for key, each in SCHEDULES.items()}
    return scales, runs


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("latte", Layout(2)),
        ("latte", Layout(1, True)),
        *((name, Layout(2, True)) for name in ("latte", "cogvideox-5b", "wan-2.1-1.3b")),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_ranks_send_what_was_planned(name: str, layout: Layout) -> None:
    scales, runs = planned(name)
    job, methods = scales.workload, dict(SCHEDULES)
    if layout.splits_guidance:
        del methods["branch"]  # refused
    sent = launch(send, layout.num_gpus, job, methods, layout)[0]
    for key in methods:
        forecast = scales.forecast(runs[key], layout)
        num_collectives, num_bytes = sent[key]
        assert num_bytes == forecast.sent_bytes * job.num_evaluations, key
        assert num_collectives == forecast.collectives * job.num_evaluations, key
    if layout.ulysses > 1:
        assert len(set(sent.values())) == len(sent), "what is skipped is not sent"
