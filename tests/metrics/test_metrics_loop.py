import copy
from itertools import count

import pytest
import torch

from keystep.methods.auto import Auto
from keystep.metrics.generation import run_pipeline
from keystep.metrics.loop import LoopReading, read_loop, read_seconds
from keystep.models.toy.loading import SHIPPED
from tests.metrics.fakes import FakePipeline


def run(pipe, **arguments):
    return pipe("a prompt", generator=torch.Generator().manual_seed(0), output_type="np", **arguments)


def test_the_clock_is_read_at_the_first_model_call_and_after_every_step():
    pipe, clock = FakePipeline(), count()
    with read_loop(pipe, lambda: next(clock)) as reading:
        run(pipe, num_inference_steps=4)
    assert (reading.begin, reading.end, reading.num_steps) == (0, 4, 4)
    assert reading.elapsed == 4


def test_steps_are_reported_with_their_number():
    pipe, seen = FakePipeline(), []
    with read_loop(pipe, on_step=lambda done, planned: seen.append((done, planned))):
        run(pipe, num_inference_steps=3)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_pipeline_is_left_as_it_was_also_after_an_error():
    pipe = FakePipeline()
    before = dict(vars(pipe.scheduler))
    with pytest.raises(KeyError), read_loop(pipe):
        raise KeyError
    assert vars(pipe.scheduler) == before
    assert not pipe.transformer._forward_pre_hooks


def test_a_step_that_the_user_put_on_the_instance_comes_back():
    pipe = FakePipeline()
    own = pipe.scheduler.step
    pipe.scheduler.step = own
    with read_loop(pipe):
        assert pipe.scheduler.step is not own
    assert pipe.scheduler.step is own


def test_a_copy_of_the_scheduler_steps_itself_and_is_counted():
    """LTX-2 denoises the sound with a copy of the video's scheduler."""
    pipe = FakePipeline()
    pipe.scheduler.set_timesteps(4)
    with read_loop(pipe) as reading:
        other = copy.deepcopy(pipe.scheduler)
        other.set_timesteps(2)
        stepped = other.step(torch.ones(1), other.timesteps[0], torch.zeros(1))
    assert stepped == -0.5 and reading.num_steps == 1


def test_a_method_that_takes_the_steps_itself_is_read_too():
    pipe = SHIPPED["toy"](device="cpu")
    made = run_pipeline(pipe, Auto(speedup=2.0), {"prompt": "", "num_inference_steps": 6}, 0)
    assert made.loop_s > 0 and made.trace.is_complete and len(made.trace.key_steps) == 3


def test_watching_changes_no_bit():
    pipe = FakePipeline()
    plain = run(pipe).frames
    with read_loop(pipe):
        watched = run(pipe).frames
    assert (plain == watched).all()


def test_without_a_loop_there_is_no_reading():
    with pytest.raises(RuntimeError, match="no denoising loop"):
        _ = LoopReading().elapsed


def test_a_pipeline_without_a_transformer_is_refused():
    pipe = FakePipeline()
    del pipe.transformer
    with pytest.raises(ValueError, match="no transformer"), read_loop(pipe):
        pass


def test_seconds_go_on():
    first = read_seconds()
    assert read_seconds() >= first
