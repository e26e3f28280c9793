import json
from pathlib import Path

import pytest

from keystep.methods import MagCache, Static


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a small red circle resting on a dark background\n")
    return path


def test_ratios_are_measured_once_and_gone_on_with(run, prompts, tmp_path):
    out = tmp_path / "ratios.json"
    command = ["calibrate", "--model", "toy", "--method", "magcache", "--steps", "4", "--out", str(out)]
    result = run(*command, "--prompts", str(prompts))
    assert result.status == 0 and f"--set ratios={out}" in result.out
    first = json.loads(out.read_text())
    assert first["num_evaluations"] == 4 and len(first["values"]) == 4
    prompts.write_text(prompts.read_text() + "a large blue cross resting on a grey background\n")
    assert run(*command, "--prompts", str(prompts)).status == 0
    second = json.loads(out.read_text())
    assert len(second["runs"]) == 2 and first["runs"].items() <= second["runs"].items()
    columns = zip(*(item["ratios"] for item in second["runs"].values()), strict=True)
    assert second["values"] == pytest.approx([sum(column) / 2 for column in columns])
    assert MagCache(str(out)).policy("toy", 4).rules


def test_a_static_schedule_is_gone_on_with_after_an_interrupt(run, prompts, tmp_path, monkeypatch):
    import keystep.calibrate.segments as segments

    out, real, calls = tmp_path / "schedule.json", segments.final_latent, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:  # the plain one, the first stretch, and now the second
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(segments, "final_latent", interrupted)
    command = ["calibrate", "--model", "toy", "--method", "static", "--steps", "4", "--max-gap", "3"]
    command += ["--prompts", str(prompts), "--out", str(out)]
    assert run(*command).status == 130
    (done,) = json.loads(out.read_text())["runs"].values()
    assert list(done) == ["1-3"] and json.loads(out.read_text())["values"] is None
    calls.extend([1] * 9)
    assert run(*command).status == 0
    data = json.loads(out.read_text())
    assert list(data["values"]) == ["1-3", "2-4", "1-4"]
    assert len(calls) == 3 + 9 + 3, "the plain one and the two that were missing"
    letters = Static(str(out), compute=0.75).policy("toy", 4).rules[0].when.letters
    assert letters.count("C") == 3 and letters[0] == letters[-1] == "C"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "adacache"], "adacache"),
        (["--method", "static", "--max-gap", "1"], "--max-gap"),
        (["--method", "magcache", "--model", "toi"], "did you mean toy"),
        (["--method", "magcache", "--seeds", "x"], "--seeds: given 'x'"),
    ],
)
def test_bad_words_are_named_before_anything_is_loaded(run, prompts, tmp_path, words, message):
    base = ["calibrate", "--prompts", str(prompts), "--out", str(tmp_path / "out.json")]
    if "--model" not in words:
        base += ["--model", "toy"]
    result = run(*base, *words)
    assert result.status == 2 and message in result.err
    assert not (tmp_path / "out.json").exists()
