from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import keystep.tune.search as search
from keystep import Policy, Rule
from keystep.cli.method_options import build_method
from keystep.how import Hold
from keystep.metrics.quality import compute_psnr
from keystep.models.toy.loading import SHIPPED
from keystep.serialize import to_data
from keystep.what import Output
from keystep.when import Every
from tests.cli.conftest import PROMPT

OTHER = "a large blue cross resting on a grey background"
STEPS = 4


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(f"{PROMPT}\n{OTHER}\n")
    return path


class Generations:
    """Counts generations, and is interrupted in one of them."""

    def __init__(self, monkeypatch) -> None:
        self.methods: list[object] = []
        self.interrupt_at = 0
        self._real = search.run_pipeline
        monkeypatch.setattr(search, "run_pipeline", self._run)

    def _run(self, pipe, method, *args, **kwargs):
        self.methods.append(method)
        if len(self.methods) == self.interrupt_at:
            raise KeyboardInterrupt
        return self._real(pipe, method, *args, **kwargs)


@pytest.fixture
def generations(monkeypatch) -> Generations:
    return Generations(monkeypatch)


def words(prompts: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("tune", "--model", "toy", "--prompts", prompts, "--out", out, "--steps", STEPS, *more)


def test_a_search_is_gone_on_with_and_its_policy_does_what_the_table_says(
    run, prompts, tmp_path, generations
):
    out = tmp_path / "tuned"
    command = words(prompts, out, "--method", "taylorseer", "--set", "lite=true", "--knob", "interval=2,4")
    command = (*command, "--knob", "warmup=2:3", "--trials", 2)
    generations.interrupt_at = 6  # two plain ones, two as it comes, and in the middle of the first trial
    assert run(*command).status == 130
    assert len(list((out / "plain").iterdir())) == 2 and not (out / "policy.json").exists()

    result = run(*command)
    assert result.status == 0 and "chosen:" in result.out
    assert generations.methods.count(None) == 2, "plain videos are made once"
    data = json.loads((out / "results.json").read_text())
    assert [one["number"] for one in data["tried"]][0] == -1 and len(data["tried"]) == 3
    num_new = len({json.dumps(one["values"]) for one in data["tried"][1:]})
    assert len(generations.methods) == 6 + 2 * num_new, "values that were tried before are not tried again"

    pipe, first = SHIPPED["toy"](device="cpu"), data["front"][0]
    one = next(one for one in data["tried"] if one["number"] == first)
    assert 0 < one["score"]["compute"] < 1
    (path,) = [
        path
        for path in (out / "policies").iterdir()
        if path.stem.startswith(f"{one['score']['compute']:.3f}")
    ]
    psnrs = []
    for prompt in (PROMPT, OTHER):
        arguments = {"prompt": prompt, "num_inference_steps": STEPS}
        made = [
            generations._real(pipe, method, arguments, 0) for method in (None, build_method(None, (), path))
        ]
        psnrs.append(compute_psnr(made[1].video, made[0].video))
    assert one["score"]["psnr"] == pytest.approx(np.mean(psnrs)) and one["score"]["psnr_low"] == min(psnrs)
    assert (out / "pareto.png").read_bytes()[:4] == b"\x89PNG" and path.name in (
        out / "report.html"
    ).read_text()

    num_made = len(generations.methods)
    floor = run(*command, "--at-psnr", 999)
    assert floor.status == 2 and "--at-psnr 999: nothing that was tried is so; there is" in floor.err
    assert run(*command, "--at-compute", one["score"]["compute"]).status == 0
    assert json.loads((out / "policy.json").read_text()) == json.loads(path.read_text())
    assert len(generations.methods) == num_made, "choosing again makes nothing"
    other = run(*command, "--likeness", "low")
    assert other.status == 2 and "likeness = 'mean', given now: 'low'; give another folder" in other.err


def test_a_policy_spelled_out_and_a_time_limit(run, prompts, tmp_path, generations):
    """Its knobs are paths; no time is left after the policy as it comes."""
    prompts.write_text(f"{PROMPT}\n")
    data = to_data(Policy((Rule(Output(), Every(2), Hold()),), "mine"))
    data.pop("type")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"method": "custom", **data}))
    command = words(prompts, tmp_path / "tuned", "--policy", path, "--time-limit", 0)
    assert "'custom' has no knobs of its own left to turn" in run(*command).err
    result = run(*command, "--knob", "rules.0.when.period=2:3")
    assert result.status == 0 and "as it comes" in result.out
    assert len(generations.methods) == 2
    assert (
        json.loads((tmp_path / "tuned" / "policy.json").read_text())["rules"]
        == json.loads(path.read_text())["rules"]
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "adacach"], "unknown method 'adacach'; did you mean adacache"),
        (["--method", "adacache", "--knob", "dept=0:1"], "unknown option of adacache 'dept'"),
        (["--method", "adacache", "--knob", "depth=0:2"], "adacache.depth: given 2"),
        (["--method", "teacache", "--set", "threshold=0.1"], "no knobs of its own left to turn"),
        (["--method", "none"], "'none' has no knobs"),
        (
            ["--method", "adacache", "--knob", "depth=0:1:lin"],
            "--knob: given 'depth=0:1:lin', allowed: NAME=",
        ),
        (["--method", "taylorseer", "--knob", "order=1,0"], "taylorseer.order: given 0"),
        (["--method", "adacache", "--trials", "0"], "--trials"),
        (["--method", "adacache", "--seeds", "x"], "--seeds: given 'x'"),
    ],
)
def test_bad_words_are_named_before_anything_is_loaded(run, no_load, prompts, tmp_path, more, message):
    result = run(*words(prompts, tmp_path / "out"), *more)
    assert result.status == 2 and message in result.err
    assert not (tmp_path / "out").exists()


def test_it_says_what_to_install(run, no_load, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr("keystep.cli.tune.find_spec", lambda name: None if name == "optuna" else object())
    result = run(*words(prompts, tmp_path / "out"), "--method", "adacache")
    assert result.status == 2 and "optuna: not installed; pip install '.[tune]'" in result.err
