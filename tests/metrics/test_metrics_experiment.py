from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import keystep
from keystep.engine.trace import Trace
from keystep.metrics.experiment import PLAIN, Experiment
from keystep.metrics.generation import run_pipeline
from tests.metrics.fakes import FakePipeline


class Recorder:
    def __init__(self):
        self.labels, self.steps = [], []

    def begin_generation(self, label):
        self.labels.append(label)

    def end_step(self, num_done, num_planned):
        self.steps.append((num_done, num_planned))


@pytest.fixture
def attached(monkeypatch):
    """Stands in for the engine: doubles the transformer's output, notes what was attached."""
    seen = []

    @contextmanager
    def accelerate(pipe, method):
        seen.append(method)
        handle = pipe.transformer.register_forward_hook(lambda module, args, output: output * 1.1)
        trace = Trace("fake", "fake", 4, guided=False)
        yield SimpleNamespace(trace=trace, summary=lambda: "what happened")
        handle.remove()

    monkeypatch.setattr(keystep, "accelerate", accelerate, raising=False)
    return seen


def test_plain_runs_are_never_attached(attached):
    made = run_pipeline(FakePipeline(), None, {"prompt": "x"}, 0)
    assert attached == []
    assert made.trace is None
    assert made.summary == ""
    assert made.loop_s > 0
    assert made.total_s >= made.loop_s
    assert made.video.shape == (5, 8, 8, 3)


def test_the_seed_decides_the_noise(attached):
    def make(seed):
        return run_pipeline(FakePipeline(), "m", {"prompt": "x"}, seed).video

    assert (make(1) == make(1)).all()
    assert (make(1) != make(2)).any()


def test_flops_are_those_of_the_loop():
    made = run_pipeline(
        FakePipeline(), None, {"prompt": "x", "num_inference_steps": 3}, 0, should_count_flops=True
    )
    assert made.flops == 3 * 2 * (5 * 8 * 8) * 3 * 3
    assert made.loop_s == 0


def test_every_method_is_timed_in_turns_with_the_plain_pipeline(attached):
    recorder = Recorder()
    experiment = Experiment(FakePipeline(), {"a": "A", "b": "B"}, {}, num_rounds=2, progress=recorder)
    results = experiment.measure("x", 0, ["a", "b"])
    assert recorder.labels == [PLAIN, "a", "b"] + ["plain, timed", "a, timed", "b, timed"] * 2
    assert len(recorder.labels) == experiment.count_generations(2)
    assert recorder.steps[:4] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    outcomes = {outcome.method: outcome for outcome, _ in results}
    assert list(outcomes) == [PLAIN, "a", "b"]
    assert len(outcomes["a"].pairs) == 2
    assert outcomes[PLAIN].pairs == ()
    # both methods of a round share its plain run
    assert outcomes["a"].pairs[0].plain_loop_s == outcomes["b"].pairs[0].plain_loop_s


def test_methods_are_judged_by_the_plain_video_of_their_seed(attached):
    results = Experiment(FakePipeline(), {"a": "A"}, {}, num_rounds=0).measure("x", 3, ["a"])
    (plain, plain_video), (fast, fast_video) = results
    assert plain.quality is None
    assert fast.quality is not None
    assert fast.quality.psnr < 60
    assert (plain_video != fast_video).any()
    assert fast.trace is not None
    assert fast.seed == 3


def test_a_used_up_budget_still_gives_one_round(attached):
    experiment = Experiment(FakePipeline(), {"a": "A"}, {}, num_rounds=5, budget_s=0.0)
    assert len(experiment.measure("x", 0, ["a"])[1][0].pairs) == 1


def test_a_pipeline_that_makes_no_video_is_refused():
    class Images(FakePipeline):
        def __call__(self, prompt, generator, output_type):
            super().__call__(prompt, generator, output_type)
            return SimpleNamespace(images=[])

    with pytest.raises(ValueError, match="makes no video"):
        run_pipeline(Images(), None, {"prompt": "x"}, 0)
