"""Recorded forwards, samplings and tables of Open-Sora pass, and fail where anything in them is changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.parity import rflow, stdit3
from tests.parity.report import Case

DATA = Path(__file__).parents[1] / "data" / "opensora12"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy that may be changed."""
    for name in ("stdit3_tiny", "rflow"):
        shutil.copytree(DATA / name, tmp_path / name)
    return tmp_path


def outcomes(kind, folder: Path) -> dict[str, str]:
    """Status by quantity."""
    cases: list[Case] = list(kind.find(folder, ""))
    return {result.name.partition("_")[2]: result.status for case in cases for result in case.results()}


def change(path: Path, name: str, index: tuple[int, ...]) -> None:
    tensors = load_file(path)
    tensors[name][index] += 0.01
    save_file(tensors, path)


def test_a_forward(root: Path) -> None:
    folder = root / "stdit3_tiny"
    assert outcomes(stdit3, folder) == {"image out": "ok", "image act.*": "ok"}
    change(folder / "case3_image.safetensors", "act.temporal_blocks.2.attn", (0, 0, 0))
    assert outcomes(stdit3, folder) == {"image out": "ok", "image act.*": "FAIL"}
    change(folder / "weights.safetensors", "final_layer.scale_shift_table", (0, 0))
    assert outcomes(stdit3, folder) == {"image out": "FAIL", "image act.*": "FAIL"}


def test_a_sampling(root: Path) -> None:
    folder = root / "rflow"
    quantities = ("imagecond_edit timesteps", "imagecond_edit frame masks", "imagecond_edit latents")
    path = folder / "r3_imagecond_edit.safetensors"
    assert [outcomes(rflow, folder)[name] for name in quantities] == ["ok"] * 3
    tensors = load_file(path)
    tensors["noises"][26, 0, 0, 1] += 0.1
    tensors["timesteps"][3] += 1e-4
    tensors["x_mask"][2, 0, 1] ^= True
    save_file(tensors, path)
    assert [outcomes(rflow, folder)[name] for name in quantities] == ["FAIL"] * 3


def test_a_table(root: Path) -> None:
    path = root / "rflow" / "timesteps_table.json"
    rows = json.loads(path.read_text())
    assert outcomes(rflow, path.parent)["table"] == "ok"
    rows[7]["timesteps"][3] += 1e-4
    path.write_text(json.dumps(rows))
    assert outcomes(rflow, path.parent)["table"] == "FAIL"


def test_the_released_keys(root: Path) -> None:
    path = Path(shutil.copy(DATA / "stdit3_xl2_state_dict.json", root))
    assert outcomes(stdit3, root) == {"xl2_state_dict keys": "ok"}
    content = json.loads(path.read_text())
    content["state_dict"]["rope.freqs"]["shape"] = [35]
    path.write_text(json.dumps(content))
    assert outcomes(stdit3, root) == {"xl2_state_dict keys": "FAIL"}
