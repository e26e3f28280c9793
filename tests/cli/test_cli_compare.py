"""Comparisons on the toy model: complete, resumable, never half-written."""

import json

import pytest

import keystep
from keystep.cli.main import main
from keystep.metrics import experiment
from tests.cli.conftest import PROMPT

OTHER = "a large blue square resting on a light background"
STEPS = 6


def arguments(folder, *extra):
    return [
        "compare", "--model", "toy", "--prompts", str(folder / "prompts.txt"), "--out", str(folder / "out"),
        "--policy", str(folder / "often.json"), "--steps", str(STEPS), *extra,
    ]  # fmt: skip


def prepare(folder, *prompts):
    (folder / "prompts.txt").write_text("\n".join(prompts))
    (folder / "often.json").write_text('{"method": "adacache", "codebook": {"100": 4}, "native": 6}')


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    prepare(folder, "# two prompts", PROMPT, OTHER)
    assert main(arguments(folder)) == 0
    return folder


@pytest.fixture
def generations(monkeypatch):
    """Labels of the generations that really run."""
    labels = []
    original = experiment.run_pipeline

    def spy(pipe, method, call, seed, **options):
        labels.append(("plain" if method is None else "method", call["prompt"], seed))
        return original(pipe, method, call, seed, **options)

    monkeypatch.setattr(experiment, "run_pipeline", spy)
    return labels


def read_results(folder):
    return json.loads((folder / "out" / "results.json").read_text())


def test_every_method_on_every_prompt(finished):
    data = read_results(finished)
    assert [(outcome["prompt"], outcome["method"]) for outcome in data["outcomes"]] == [
        (PROMPT, "plain"), (PROMPT, "often"), (OTHER, "plain"), (OTHER, "often"),
    ]  # fmt: skip
    often = data["summaries"][1]
    assert often["num_videos"] == 2
    assert often["speedup"]["num"] == 2
    assert often["compute_ratio"] < 1
    assert often["key_steps"]["max"] < STEPS
    assert data["facts"]["steps"] == STEPS


def test_videos_table_and_page_are_there(finished):
    out = finished / "out"
    for outcome in read_results(finished)["outcomes"]:
        assert (out / outcome["video"]).stat().st_size > 0
    assert "| often |" in (out / "results.md").read_text()
    assert OTHER in (out / "report.html").read_text()
    assert not [path for path in out.rglob(".*")]  # no temporary files


def test_finished_items_are_not_made_again(run, finished, generations):
    before = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.mp4")}
    result = run(*arguments(finished))
    assert result.status == 0
    assert generations == []
    assert "4 items are finished already" in result.err
    assert {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.mp4")} == before


def test_an_interrupted_comparison_goes_on(run, tmp_path, generations, monkeypatch):
    prepare(tmp_path, PROMPT, OTHER)
    original = experiment.Experiment.measure

    def stop_at_second(self, prompt, seed, labels):
        if prompt == OTHER:
            raise KeyboardInterrupt
        return original(self, prompt, seed, labels)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.Experiment, "measure", stop_at_second)
        assert run(*arguments(tmp_path, "--pairs", "0")).status == 130
    assert not (tmp_path / "out" / "results.json").exists()
    generations.clear()
    result = run(*arguments(tmp_path, "--pairs", "0"))
    assert result.status == 0
    assert generations == [("plain", OTHER, 0), ("method", OTHER, 0)]
    assert len(read_results(tmp_path)["outcomes"]) == 4
    assert read_results(tmp_path)["summaries"][1]["speedup"] is None


def test_a_broken_or_lost_item_is_made_again(run, tmp_path, generations):
    prepare(tmp_path, PROMPT)
    assert run(*arguments(tmp_path, "--pairs", "0")).status == 0
    generations.clear()
    next((tmp_path / "out" / "items").glob("*often*.json")).write_text("{")
    assert run(*arguments(tmp_path, "--pairs", "0")).status == 0
    assert [kind for kind, *_ in generations] == ["plain", "method"]
    generations.clear()
    next((tmp_path / "out" / "videos").glob("*plain*.mp4")).unlink()
    assert run(*arguments(tmp_path, "--pairs", "0")).status == 0
    assert [kind for kind, *_ in generations] == ["plain"]


def test_other_settings_need_another_folder(run, no_load, finished):
    result = run(*arguments(finished, "--guidance", "3"))
    assert result.status == 2
    assert "guidance = None, given now: 3.0" in result.err
    (finished / "often.json").write_text('{"method": "adacache", "codebook": {"100": 3}}')
    result = run(*arguments(finished))
    assert result.status == 2
    assert "often = " in result.err


def test_a_method_that_does_not_fit_fails_before_the_first_video(run, tmp_path, generations, monkeypatch):
    prepare(tmp_path, PROMPT)

    def refuse(pipe, method):
        raise ValueError(f"{type(pipe).__name__}: no such site")

    monkeypatch.setattr(keystep, "accelerate", refuse, raising=False)
    result = run(*arguments(tmp_path))
    assert result.status == 2
    assert result.err == "error: ToyPipeline: no such site\n"
    assert generations == []


def test_a_foreign_folder_is_refused(run, no_load, tmp_path):
    prepare(tmp_path, PROMPT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "settings.json").write_text("[]")
    result = run(*arguments(tmp_path))
    assert result.status == 2
    assert "unreadable" in result.err
