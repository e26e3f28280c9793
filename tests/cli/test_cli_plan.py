"""`keystep plan` on a model cut down to two blocks; the figures themselves are tested in tests/plan."""

import json
from dataclasses import replace

import pytest

from keystep.plan import BLUEPRINTS
from keystep.plan.workload import Workload
from tests.cli.test_cli_errors import expect


@pytest.fixture
def plan(run, monkeypatch):
    def call(*arguments, model="latte"):
        blueprint = BLUEPRINTS.get(model)
        if blueprint is not None:
            small = replace(blueprint, config={**blueprint.config, blueprint.depth: 2})
            monkeypatch.setitem(BLUEPRINTS, model, small)
        return run("plan", "--model", model, *arguments)

    return call


@pytest.fixture
def no_plan(monkeypatch):
    def build(*_, **__):
        raise AssertionError("a model was built")

    monkeypatch.setattr(Workload, "build", build)


def test_tables_say_what_a_run_takes(plan):
    result = plan("--methods", "fastercache,adacache", "--steps", 12)
    assert result.status == 0, result.err
    assert "16 frames of 512 x 512, batch 1, 12 steps, bfloat16" in result.out
    assert "tokens: 16384 (16 latent frames x 1024), 120 of text" in result.out
    rows = {line.split("│")[1].strip(): line for line in result.out.splitlines() if "│" in line}
    assert "branch[uncond]: " in rows["fastercache"]
    assert "adaptive: " in rows["adacache"]
    assert "12 in full" in rows["adacache"]
    assert "GiB" in rows["fastercache"] or "MiB" in rows["fastercache"]


def test_json_holds_the_same_and_more(plan, tmp_path):
    (tmp_path / "mine.toml").write_text("method = 'fastercache'\ncfg = false\n")
    options = ("--methods", "", "--policy", tmp_path / "mine.toml", "--json")
    result = plan("--steps", 12, "--batch", 2, "--dtype", "float32", *options)
    assert result.status == 0, result.err
    data = json.loads(result.out)
    assert (data["model"], data["batch"], data["dtype"]) == ("latte", 2, "float32")
    assert data["num_tokens"] == data["num_latent_frames"] * data["tokens_per_frame"] == 16384
    assert data["weight_bytes"] == pytest.approx(4 * data["num_parameters"], rel=3e-2)  # tables too
    mine = data["methods"]["mine"]
    assert set(mine["skips"]) == {"attention"}
    assert mine["computed"][0] == mine["computed"][1] == 12 - mine["skips"]["attention"][0]
    assert 0 < mine["compute"][0] < 1
    assert mine["cache_bytes"] > 0


def test_remarks_of_a_method_are_shown(plan):
    result = plan("--methods", "fastercache", "--steps", 8)
    assert "fastercache: CFG-Cache needs 12 evaluations or more, this run has 8" in result.out


def test_named_sizes_reach_the_plan(plan):
    size = ("--resolution", "144p", "--aspect", "1:1", "--seconds", 4, "--json")
    result = plan(*size, "--methods", "adacache", "--steps", 4, model="opensora-1.2")
    assert result.status == 0, result.err
    data = json.loads(result.out)
    assert (data["height"], data["width"], data["num_frames"]) == (192, 192, 102)
    assert (data["num_latent_frames"], data["tokens_per_frame"]) == (30, 144)


def test_several_gpus(plan):
    hardware = ("--gpu", "h100", "--link", "pcie5", "--latency", 10, "--efficiency", 0.5, "--other", 2)
    result = plan("--gpus", "4, 1,2", "--methods", "fastercache,adacache", "--steps", 20, *hardware)
    assert result.status == 0, result.err
    assert "GPUs of 989 TFLOP/s at 50%, links of 50 GB/s and 10 us, 2.0 s outside" in result.out
    assert "fastercache: it rebuilds one guidance branch" in result.out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines()]
    rows = [tuple(row[:3]) for row in cells if len(row) == 9]
    layouts = [
        ("1", "one GPU"), ("2", "ulysses 2"), ("2", "cfg 2"), ("4", "ulysses 4"), ("4", "cfg 2 x ulysses 2")
    ]  # fmt: skip
    assert rows == [
        *(("none", *layout) for layout in layouts),
        *(("fastercache", *layout) for layout in layouts if "cfg" not in layout[1]),
        *(("adacache", *layout) for layout in layouts),
    ]


def test_several_gpus_as_json(plan):
    hardware = ("--peak", 100, "--bandwidth", 10, "--dtype", "float32")
    result = plan("--gpus", "2", "--methods", "adacache", "--steps", 20, "--json", *hardware)
    assert result.status == 0, result.err
    data = json.loads(result.out)
    assert (data["machine"]["peak"], data["machine"]["link"]["bandwidth"]) == (1e14, 1e10)
    [[sharded], [split]] = data["scaling"]["none"]
    assert (sharded["layout"], split["layout"]) == ("ulysses 2", "cfg 2")
    assert sharded["flops"] == split["flops"] == data["flops"] / 2
    assert sharded["run_s"] == pytest.approx(20 * (sharded["compute_s"] + sharded["exchange_s"]))
    [[least, most], _] = data["scaling"]["adacache"]
    assert least["run_s"] < most["run_s"] == sharded["run_s"]
    assert least["sent_bytes"] < most["sent_bytes"] == sharded["sent_bytes"]


@pytest.mark.usefixtures("no_plan", "no_load")
@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("late", [], ["'late'", "did you mean latte"]),
        ("toy", [], ["unknown model to plan 'toy'", "opensora-1.2"]),
        ("latte", ["--resolution", "720p"], ["--resolution", "LattePipeline", "--height"]),
        ("latte", ["--frames", "17"], ["frames: given 17", "16"]),
        ("latte", ["--batch", "0"], ["--batch", "0"]),
        ("latte", ["--methods", "adacach"], ["did you mean adacache"]),
        ("latte", ["--set", "window=2"], ["--set"]),
        ("latte", ["--gpus", "two"], ["--gpus: given 'two'", "1,2,4,8"]),
        ("latte", ["--gpus", ""], ["--gpus: given ''"]),
        ("latte", ["--gpus", "0,2"], ["--gpus: given '0,2'"]),
        ("latte", ["--gpu", "h100", "--link", "pcie5"], ["--gpu, --link", "--gpus 1,2,4,8"]),
        ("latte", ["--gpus", "2", "--gpu", "h10"], ["unknown GPU 'h10'", "h100"]),
        ("latte", ["--gpus", "2", "--link", "nvlink"], ["unknown link 'nvlink'", "nvlink3"]),
        ("latte", ["--gpus", "2", "--efficiency", "40"], ["efficiency: given 40.0"]),
        ("latte", ["--gpus", "2", "--dtype", "float32"], ["dtype: given 'float32'", "--peak"]),
        ("opensora-1.2", ["--resolution", "721p"], ["resolution: given '721p'", "nearest: 720p"]),
        ("opensora-1.2", ["--seconds", "3"], ["seconds: given 3"]),
        ("opensora-1.2", ["--resolution", "720p", "--height", "64"], ["height, width: given 64"]),
    ],
)
def test_bad_input_is_named_before_anything_is_built(plan, model, arguments, words):
    expect(plan(*arguments, model=model), *words)


@pytest.mark.usefixtures("no_load")
@pytest.mark.parametrize("command", ["generate", "compare"])
def test_sizes_and_loading_options_are_checked_before_loading(run, tmp_path, command):
    (tmp_path / "prompts.txt").write_text("a panda")
    prompts = {
        "generate": ["--prompt", "a panda", "--method", "adacache", "--out", tmp_path / "a.mp4"],
        "compare": ["--prompts", tmp_path / "prompts.txt", "--methods", "adacache", "--out", tmp_path / "o"],
    }

    def call(*arguments):
        return run(command, "--model", "opensora-1.2", *prompts[command], *arguments)

    expect(call("--resolution", "721p"), "resolution: given '721p'", "nearest: 720p")
    expect(call("--seconds", "3"), "seconds: given 3")
    expect(call("--load", "vea=/data/vae"), "--load", "'vea'", "did you mean vae")
    expect(call("--load", "vae"), "--load", "'vae'", "key=value")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.txt"]


def test_loading_options_reach_the_loader(run, tmp_path, monkeypatch):
    import keystep

    seen = {}

    def load(model, **options):
        seen.update(model=model, **options)
        raise OSError("no such checkpoint")

    monkeypatch.setattr(keystep, "load", load, raising=False)
    result = run(
        "generate", "--model", "opensora-1.2", "--prompt", "a panda", "--method", "adacache",
        "--resolution", "480p", "--out", tmp_path / "a.mp4", "--load", "source=/data/stdit",
        "--load", "text_encoder=/data/t5",
    )  # fmt: skip
    assert result.err == "error: no such checkpoint\n"
    assert (seen["model"], seen["source"], seen["text_encoder"]) == (
        "opensora-1.2",
        "/data/stdit",
        "/data/t5",
    )
