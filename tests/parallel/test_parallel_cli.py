"""`torchrun ... -m keystep generate`: one file, one summary, one message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keystep.cli.main import main
from tests.parallel import work
from tests.parallel.launch import launch_command

LINE = ["generate", "--model", "toy", "--method", "adacache", "--prompt", "a red circle", "--steps", "14"]


@pytest.fixture
def line(tmp_path: Path) -> list[str]:
    return [*LINE, "--out", str(tmp_path / "video.mp4")]


def test_the_first_rank_writes_and_prints(line: list[str], tmp_path: Path) -> None:
    (status, out, err), (other_status, other_out, other_err) = launch_command(2, line)
    assert status == other_status == 0
    assert "key steps" in out and "wrote" in out and (other_out, other_err) == ("", "")
    assert "Error" not in err
    together = (tmp_path / "video.mp4").read_bytes()
    assert main(line) == 0
    assert (tmp_path / "video.mp4").read_bytes() == together


def test_a_mistake_of_all_is_told_once(line: list[str]) -> None:
    results = launch_command(2, [*line, "--ulysses", "3"])
    assert all(status != 0 for status, _, _ in results)
    told = [err for _, _, err in results if err]
    assert len(told) == 1
    assert "ulysses: given 3, allowed: 1, 2 of 2 ranks, cfg=1" in told[0]


def test_idle_ranks_are_refused(line: list[str]) -> None:
    results = launch_command(2, [*line, "--ulysses", "1"])
    assert ["other ranks would be idle" in err for _, _, err in results].count(True) == 1


def test_a_mistyped_option_is_told_once(line: list[str]) -> None:
    (_, _, err), (status, _, other_err) = launch_command(2, [*line, "--ulyses", "2"])
    assert "--ulyses" in err and other_err == "" and status == 2


def test_a_failure_of_one_rank_is_told_once(line: list[str], tmp_path: Path) -> None:
    results = launch_command(2, line, work.break_on_rank_1)
    assert all(status != 0 for status, _, _ in results)
    told = [err for _, _, err in results if err]
    assert len(told) == 1 and "out of memory" in told[0]
    assert not (tmp_path / "video.mp4").exists()


def test_one_process_has_no_ranks(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*line, "--ulysses", "2"]) == 2
    assert "--ulysses: there is one process only; start several with `torchrun" in capsys.readouterr().err
    assert main([*line, "--cfg-parallel"]) == 2
    assert "--cfg-parallel: there is one process only" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun(line: list[str], tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    made = subprocess.run([*torchrun, "-m", "keystep", *line], capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("wrote") == 1
    assert (tmp_path / "video.mp4").stat().st_size > 0
