"""`keystep batch` from end to end on the toy model, and what it refuses before anything is loaded."""

import json

import pytest

from keystep.cli import batch as command
from keystep.cli.main import main
from keystep.media import read_mp4

PROMPT = "a small red circle moving left slowly on a dark background"
STEPS = 2
# Any change is below the threshold, so two of three evaluations are skipped.
REUSE = {"codebook": {"100": 3}, "native": 6}


def write(folder, *lines):
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def batch(folder, *extra, method="pab"):
    arguments = [
        "batch",
        folder / "prompts.jsonl",
        "--model",
        "toy",
        "--out",
        folder / "out",
        "--steps",
        STEPS,
    ]
    arguments += ["--method", method] if method else []
    return main([str(argument) for argument in [*arguments, *extra]])


@pytest.fixture
def no_workers(monkeypatch):
    def fail(*_):
        raise AssertionError("workers were hired")

    monkeypatch.setattr(command._Crew, "hire", fail)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch")
    write(
        folder,
        {"id": "one", "prompt": PROMPT, "seed": 1, "method": "adacache", "options": REUSE, "steps": 6},
        {"id": "plain", "prompt": PROMPT, "seed": 2, "method": "none", "steps": 3},
        '{"prompt": ',
        {"id": "strange", "prompt": "a purple dragon", "method": "none"},
    )
    status = batch(folder)
    return folder, status


def read_lines(folder, name="manifest.jsonl"):
    return {
        line.get("id"): line for line in map(json.loads, (folder / "out" / name).read_text().splitlines())
    }


def test_every_good_line_is_a_video_and_a_line(finished):
    folder, status = finished
    assert status == command.SOME_MISSING
    lines = read_lines(folder)
    assert set(lines) == {"one", "plain", "strange"}
    for line in lines.values():
        assert len(read_mp4(folder / "out" / line["file"])[0]) == 16
        assert line["loop_s"] > 0
    assert lines["one"]["options"] == REUSE
    assert lines["one"]["key_steps"] == sorted(lines["one"]["key_steps"])
    assert 0 < len(lines["one"]["key_steps"]) < lines["one"]["num_evaluations"] == 6
    assert lines["one"]["peak_cache_bytes"] > 0
    assert lines["plain"]["key_steps"] is None
    assert (lines["one"]["steps"], lines["plain"]["steps"]) == (6, 3)
    assert any("dragon" in note for note in lines["strange"]["notes"])


def test_the_bad_line_is_set_aside_by_its_number(finished):
    assert read_lines(finished[0], "failed.jsonl")[None]["line"] == 3


def test_a_video_is_the_one_that_generate_makes(finished, tmp_path):
    folder, _ = finished
    options = [f"--set={name}={json.dumps(value)}" for name, value in REUSE.items()]
    arguments = ["--model", "toy", "--method", "adacache", "--prompt", PROMPT, "--seed", "1", "--steps", "6"]
    assert main(["generate", *arguments, *options, "--out", str(tmp_path / "a.mp4")]) == 0
    made, alone = read_mp4(folder / "out" / "videos" / "one.mp4")[0], read_mp4(tmp_path / "a.mp4")[0]
    assert (made == alone).all()


def test_the_same_command_makes_nothing_again(finished, no_workers, capsys):
    folder, _ = finished
    assert batch(folder) == command.SOME_MISSING
    out = capsys.readouterr().out
    assert "3 finished: 0 now" in out
    assert "3 before" in out
    assert "line 3" in out


def test_other_steps_need_another_folder(finished, no_workers, capsys):
    folder, _ = finished
    assert batch(folder, "--steps", 4) == 2
    assert "'strange' with steps = 2, given now: 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"prompt": "a", "method": "adacach"}, "did you mean adacache"),
        ({"prompt": "a", "options": {"depht": 1}}, "depht"),
        ({"prompt": "a", "width": 64}, "--width: ToyPipeline does not take it"),
        ({"prompt": "a", "resolution": "720p"}, "no named sizes"),
    ],
)
def test_what_model_and_methods_refuse_is_known_before_anything_is_loaded(
    tmp_path, no_workers, capsys, line, words
):
    write(tmp_path, line)
    assert batch(tmp_path) == command.SOME_MISSING
    assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert words in read_lines(tmp_path, "failed.jsonl")[None]["error"]


@pytest.mark.parametrize(
    ("extra", "method", "words"),
    [
        (["--device", "cuda:1"], "pab", ["--device", "cuda:1", "CUDA_VISIBLE_DEVICES"]),
        (["--device", "abacus"], "pab", ["--device", "abacus"]),
        (["--workers", "0"], "pab", ["--workers", "0"]),
        (["--tries", "0"], "pab", ["--tries", "0"]),
        ([], "pabb", ["unknown method", "'pabb'"]),
        (["--set", "depth=1"], None, ["--method"]),
        (["--load", "sauce=x"], "pab", ["--load", "sauce"]),
    ],
)
def test_wrong_options_are_one_line(tmp_path, no_workers, capsys, extra, method, words):
    write(tmp_path, {"prompt": PROMPT})
    assert batch(tmp_path, *extra, method=method) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not (tmp_path / "out").exists()


def test_without_any_method_the_line_says_so(tmp_path, no_workers, capsys):
    write(tmp_path, {"prompt": PROMPT})
    assert batch(tmp_path, method=None) == command.SOME_MISSING
    assert "method: missing" in capsys.readouterr().out


def test_each_worker_has_a_gpu_or_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def share(num, device):
        return command._Crew(num, None, device)._share_out()

    assert share(None, "cuda") == [{"CUDA_VISIBLE_DEVICES": index} for index in "012"]
    assert share(2, "cuda") == [{"CUDA_VISIBLE_DEVICES": index} for index in "01"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert share(None, "cuda") == [{"CUDA_VISIBLE_DEVICES": index} for index in "57"]
    assert share(None, "cpu") == [{"OMP_NUM_THREADS": "8"}]
    assert share(3, "cpu") == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert share(2, "cpu") == [{}, {}]


def test_more_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("keystep.cli.pipeline.check_device", lambda _: None)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ValueError, match="--workers: given 3, allowed: 1 to 2"):
        command._Crew(3, None, "cuda").check()
