"""The bench from the command line: small runs, resumed, and what is refused before anything is loaded."""

import json

import pytest

from keystep.cli.main import main

SMALL = ("--models", "wan-narrow", "--parts", "robustness", "--methods", "adacache", "--rivals", "none")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    assert main(["bench", "--out", str(folder), "--steps", "4", *SMALL]) == 0
    return folder


def test_a_small_run_leaves_rows_tables_and_a_page(finished):
    data = json.loads((finished / "results.json").read_text())
    assert [row["method"] for row in data["rows"]] == ["plain", "adacache"]
    assert data["settings"]["steps"] == 4
    assert data["runs"][0]["commit"]
    assert "| keystep: adacache |" in (finished / "results.md").read_text()
    assert "Robustness, wan-narrow" in (finished / "report.html").read_text()


def test_finished_rows_are_not_measured_again(run, finished, monkeypatch):
    def measure(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr("keystep.lab.robustness._check", measure)
    before = (finished / "results.json").read_text()
    assert run("bench", "--out", finished, "--steps", 4, *SMALL).status == 0
    assert (finished / "results.json").read_text() == before


def test_other_settings_need_another_folder(run, finished):
    result = run("bench", "--out", finished, "--steps", 5, *SMALL)
    assert result.status == 2
    assert "steps = 4, given now: 5" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--parts", "beauty"), "unknown --parts 'beauty'"),
        (("--rivals", "nobody"), "unknown --rivals 'nobody'"),
        (("--methods", "adacash"), "did you mean adacache"),
        (("--models", "wan-narow"), "--model: given 'wan-narow'"),
        (("--models", "latte"), "--prompts: latte brings no prompts"),
        (("--seeds", "0,0"), "--seeds"),
        (("--device", "abacus"), "--device: given 'abacus'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded(run, no_load, tmp_path, arguments, words):
    result = run("bench", "--out", tmp_path / "out", *arguments)
    assert result.status == 2
    assert words in result.err
    assert not (tmp_path / "out").exists()
