"""Two generations in turns: each is told its own time, and both make what they make alone."""

import time

import pytest
import torch

from keystep.lab.lockstep import Side, time_together, twin
from keystep.lab.sample import generate
from keystep.lab.shapes import random_subjects
from tests.lab.rivals import STEPS, make_bench

SLOW_S = 0.05


def sides(before_step, before_other_step):
    """Two benches of tiny models; what is done in front of each of their model calls."""
    made = []
    for begin in (before_step, before_other_step):
        bench = make_bench()
        bench.pipe.transformer.register_forward_pre_hook(lambda *_, begin=begin: begin())
        made.append(Side(bench.pipe, bench.call("a", 0)))
    return made


@pytest.mark.parametrize("is_second_ahead", [False, True])
def test_steps_alternate(is_second_ahead):
    order = []
    time_together(*sides(lambda: order.append(0), lambda: order.append(1)), is_second_ahead)
    assert order == ([1, 0] if is_second_ahead else [0, 1]) * STEPS


def test_each_is_told_its_own_time():
    slow, quick = time_together(*sides(lambda: time.sleep(SLOW_S), lambda: None), is_second_ahead=True)
    # a step's sleep lies between the loop's begin and its end, but for the first, which begins it
    assert slow.loop_s >= SLOW_S * (STEPS - 1)
    assert quick.loop_s < SLOW_S
    assert quick.total_s < SLOW_S
    assert slow.total_s >= slow.loop_s > 0
    assert slow.loop_cpu_s < SLOW_S


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_both(failing):
    calls = [0, 0]

    def begin(index):
        calls[index] += 1
        if index == failing and calls[index] == 2:
            raise IndexError("of this one")

    with pytest.raises(IndexError, match="of this one"):
        time_together(*sides(lambda: begin(0), lambda: begin(1)), is_second_ahead=False)
    assert max(calls) <= 2


def test_the_shorter_one_does_not_hold_up_the_other():
    first, second = sides(lambda: None, lambda: None)
    short = Side(second.pipe, {**second.arguments, "num_inference_steps": 1})
    assert all(timed.loop_s > 0 for timed in time_together(first, short, is_second_ahead=True))


def test_a_twin_shares_weights_and_nothing_else():
    subject = random_subjects()["wan-narrow"]
    pipe = subject.load()
    other = twin(pipe)
    assert other.transformer is not pipe.transformer
    assert other.scheduler is not pipe.scheduler
    pairs = zip(pipe.transformer.parameters(), other.transformer.parameters(), strict=True)
    assert all(own is shared for own, shared in pairs)
    other.transformer.blocks[0].attn1.forward = None  # a hook on one is none on the other
    assert callable(pipe.transformer.blocks[0].attn1.forward)
    assert pipe.components["transformer"] is pipe.transformer


def test_both_make_what_they_make_alone():
    subject = random_subjects()["wan-narrow"]
    pipe = subject.load()
    alone = torch.as_tensor(generate(pipe, subject.call("a", 0, 3)))
    made = {}

    def keep(index):
        def callback(pipe, step, timestep, tensors):
            made[index] = tensors["latents"]
            return {}

        return {**subject.call("a", 0, 3), "callback_on_step_end": callback}

    time_together(Side(pipe, keep(0)), Side(twin(pipe), keep(1)), is_second_ahead=False)
    assert torch.equal(made[0], alone)
    assert torch.equal(made[1], alone)
