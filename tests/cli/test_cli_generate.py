"""Real generations with the toy model, as few steps as show the point."""

import json
import os

import pytest

import keystep
from keystep.media import read_mp4
from tests.cli.conftest import PROMPT

STEPS = 6
# Any change is below the threshold, so two of three evaluations are skipped.
ALWAYS_REUSE = ("--method", "adacache", "--set", 'codebook={"100": 3}', "--set", f"native={STEPS}")


@pytest.fixture
def generate(run, tmp_path):
    def call(*extra, out="a.mp4"):
        return run(
            "generate",
            "--model",
            "toy",
            "--prompt",
            PROMPT,
            "--steps",
            STEPS,
            "--out",
            tmp_path / out,
            *extra,
        )

    return call


def test_a_video_and_its_trace(generate, tmp_path):
    result = generate(*ALWAYS_REUSE, "--trace", tmp_path / "t" / "trace.json")
    assert result.status == 0, result.err
    video, fps = read_mp4(tmp_path / "a.mp4")
    assert len(video) == 16
    assert video.std() > 0.01
    assert fps == 8
    trace = json.loads((tmp_path / "t" / "trace.json").read_text())
    assert trace["num_evaluations"] == STEPS
    assert 0 < len(trace["key_steps"]) < STEPS
    assert "key steps" in result.out
    assert str(tmp_path / "a.mp4") in result.out.replace("\n", "")


def test_the_seed_decides_the_video_and_methods_change_it(generate, tmp_path):
    def make(name, *extra):
        assert generate(*extra, out=name).status == 0
        return read_mp4(tmp_path / name)[0]

    plain = make("a.mp4", "--method", "none", "--seed", 1)
    assert (plain == make("b.mp4", "--method", "none", "--seed", 1)).all()
    assert (plain != make("c.mp4", "--method", "none", "--seed", 2)).any()
    assert (plain != make("d.mp4", *ALWAYS_REUSE, "--seed", 1)).any()


def test_a_policy_file_is_used(generate, tmp_path):
    (tmp_path / "policy.yaml").write_text("method: adacache\ncodebook: {100: 3}\nnative: 6\n")
    result = generate("--policy", tmp_path / "policy.yaml", "--fps", 12)
    assert result.status == 0, result.err
    assert "span: skipped in" in result.out
    assert "skipped in 0" not in result.out
    assert read_mp4(tmp_path / "a.mp4")[1] == 12


def test_plain_says_so(generate):
    result = generate("--method", "plain")
    assert result.status == 0
    assert result.out.startswith("plain generation")


@pytest.mark.filterwarnings("default::keystep.KeystepWarning")
def test_warnings_are_one_line_each(generate):
    result = generate("--method", "adacache", "--set", 'codebook={"0": 3}')  # nothing is below zero
    assert result.status == 0
    assert result.err.startswith("warning: adacache: nothing was skipped")
    assert result.err.count("\n") == 1


def test_an_error_in_mid_run_leaves_no_file(generate, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("keystep.metrics.generation.run_pipeline", fail)
    result = generate("--method", "adacache", "--trace", tmp_path / "trace.json")
    assert result.status == 1
    assert "out of memory" in result.err
    assert os.listdir(tmp_path) == []


def test_arguments_are_checked_again_against_the_loaded_pipeline(generate, monkeypatch):
    monkeypatch.setattr("keystep.cli.pipeline.find_pipeline", lambda model: None)  # as for a hub id
    result = generate("--method", "adacache", "--height", 64)
    assert result.status == 2
    assert "--height: ToyPipeline does not take it" in result.err


def test_loading_gets_precision_and_device(generate, monkeypatch):
    seen = {}

    def load(model, **options):
        seen.update(model=model, **options)
        raise OSError("no such checkpoint")

    monkeypatch.setattr(keystep, "load", load, raising=False)
    result = generate("--method", "adacache", "--dtype", "bfloat16")
    assert result.status == 2
    assert result.err == "error: no such checkpoint\n"
    assert seen["model"] == "toy"
    assert str(seen["dtype"]) == "torch.bfloat16"
    assert seen["device"] == "cpu"
