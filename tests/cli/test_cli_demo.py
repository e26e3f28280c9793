"""The demo, once, with everything it leaves behind."""

import json

import pytest
import torch

from keystep.cli import demo as command
from keystep.cli.main import main
from keystep.media import read_mp4

METHODS = ["plain", "auto", "fastercache", "adacache", "adacache+moreg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a quick demo with even fewer steps wrote."""
    out = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "NUM_QUICK_STEPS", 6)
        assert main(["demo", "--quick", "--out", str(out)]) == 0
    return out


pytestmark = pytest.mark.filterwarnings("ignore::keystep.KeystepWarning")  # so few steps leave little to skip


def test_a_video_of_each_method_and_one_of_all(folder):
    assert len(list((folder / "videos").glob("*.mp4"))) == len(METHODS)
    single, _ = read_mp4(next((folder / "videos").glob("*adacache-*.mp4")))
    row, _ = read_mp4(folder / "side-by-side.mp4")
    assert len(row) == len(single)
    assert row.shape[2] > len(METHODS) * single.shape[2]
    assert row.shape[1] > single.shape[1]  # the labels


def test_results_name_conditions_and_measure_every_method(folder):
    data = json.loads((folder / "results.json").read_text())
    assert [outcome["method"] for outcome in data["outcomes"]] == METHODS
    for fact in ("command", "date", "processor", "torch", "keystep"):
        assert data["facts"][fact]
    for summary in data["summaries"][1:]:
        assert summary["speedup"]["num"] == 1
        assert 0 < summary["compute_ratio"] <= 1
        assert summary["num_evaluations"] == 6
        assert summary["cache_bytes"] is not None
    assert any("no benchmark" in note for note in data["notes"])
    assert any("1 timed pair," in note for note in data["notes"])


def test_the_page_and_the_markdown_show_the_same_methods(folder):
    page = (folder / "report.html").read_text()
    table = (folder / "results.md").read_text()
    for method in METHODS:
        assert f'<th scope="row">{method}</th>' in page
        assert f"| {method} |" in table


def test_the_terminal_shows_the_table_and_where_the_page_is(run, monkeypatch, tmp_path, folder):
    from keystep.cli.results import summarise_methods
    from keystep.metrics.outcome import Outcome

    data = json.loads((folder / "results.json").read_text())
    summaries = summarise_methods([Outcome.from_dict(outcome) for outcome in data["outcomes"]])
    monkeypatch.setattr(command, "_measure", lambda *_: [])
    monkeypatch.setattr(command, "_write", lambda *_: summaries)
    result = run("demo", "--out", tmp_path)
    assert result.status == 0
    for word in ["speed-up", "compute", "PSNR", "SSIM", "key steps", "cache", *METHODS]:
        assert word in result.out
    assert "fixed costs" in result.out
    assert str(tmp_path / "report.html") in result.out


def test_threads_are_put_back_also_after_an_error():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), command._one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
