"""The parity runner: it passes on recorded reference runs, and fails where anything in them is changed."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
MINIMUM = 128  # compared quantities in tests/data
NAMED = (
    "latte/transformer_forward out",
    "latte/transformer_forward mid.*",
    "latte/transformer_forward out_with_encoder_attention_mask",
    *(
        f"{trajectory} {quantity}"
        for trajectory in (
            "latte/trajectory_fc_fixed",
            "latte/trajectory_fc_fixed pipeline",
            "cogvideox/ddim_trajectory_fc_fixed",
            "cogvideox/ddim_trajectory_fc_fixed pipeline",
            "cogvideox/ddim_trajectory_plain",
        )
        for quantity in ("model_out", "latents", "decisions", "rows computed")
    ),
    *(
        f"cogvideox/trajectory_fc_fixed {quantity}"
        for quantity in ("model_out", "decisions", "rows computed", "band norms")
    ),
    "cogvideox/transformer_forward out",
    "latte/trajectory_fc_fixed band norms",
    "adacache_vectors moreg-ramp/100",
    "adacache_vectors u-shape/30-slow",
    "opensora12/adacache/units u0",
    "opensora12/fastercache/fft_units s0 recovered",
    "opensora12/stdit3_tiny/case3_image out",
    "opensora12/stdit3_tiny/case3_image act.*",
    "opensora12/rflow/r3_imagecond_edit latents",
    "opensora12/rflow/r3_imagecond_edit frame masks",
    "opensora12/rflow/timesteps_table",
    "opensora12/stdit3_xl2_state_dict keys",
    "opensora12/fastercache_fixed/f1_odd latents",
    "opensora12/fastercache_fixed/f1_odd decisions",
    "osp11/transformer_forward out",
    "osp11/transformer_forward buffer.temp_pos_embed",
    "osp11/transformer_forward out_with_encoder_attention_mask",
    "osp11/clean_caption opensora_plan",
    "osp11/text embeds",
    "osp11/full_keys_transformer_65x512x512",
    "osp11/full_keys_vae",
    "vchitect2/transformer_forward case0 out",
    "vchitect2/transformer_forward case0 mid.*",
    "vchitect2/text prompt_embeds",
    "vchitect2/full_keys_transformer",
)


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The networks are tiny."""
    monkeypatch.syspath_prepend(ROOT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def parity(one_thread: None) -> Callable[[list[str]], int]:
    """The runner's main."""
    return importlib.import_module("tests.parity.__main__").main


def copy(folder: str, to: Path, *names: str) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    for path in (DATA / folder).iterdir():
        if path.is_file() and (not names or path.name in names):
            shutil.copy(path, to)
    return to


def change_tensor(path: Path, name: str, index: int) -> None:
    """Make a tensor a little larger at one index of its first dimension."""
    tensors = load_file(path)
    tensors[name][index] *= 1.001
    save_file(tensors, path)


def change_json(path: Path, change: Callable[..., None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def lines_of(text: str, status: str) -> list[str]:
    """The result lines of one status: name, error, tolerance, status, note."""
    return [line for line in text.splitlines() if re.search(rf" (\S+)  {status}( |$)", line)]


def failures(text: str) -> list[str]:
    return lines_of(text, "FAIL")


LATTE_FC = (
    "trajectory_fc_fixed.safetensors",
    "transformer_config.json",
    "transformer_weights.safetensors",
    "scheduler_config.json",
    "decision_log.json",
)


def test_command_passes_on_recorded_runs(one_thread, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["tests.parity", str(DATA)])
    monkeypatch.delitem(
        sys.modules, "tests.parity.__main__", raising=False
    )  # runpy wants to import it itself
    with pytest.raises(SystemExit) as end:
        runpy.run_module("tests.parity", run_name="__main__")
    text = capsys.readouterr().out
    assert end.value.code == 0, text
    ok = lines_of(text, "ok")
    assert not failures(text)
    assert len(ok) >= MINIMUM
    for name in NAMED:
        assert any(line.startswith(f"{name} ") for line in ok), name


@pytest.mark.parametrize(
    ("name", "index", "expected"),
    [
        ("model_out", 21, "trajectory_fc_fixed model_out"),
        ("latents", 50, "trajectory_fc_fixed latents"),
    ],
)
def test_a_changed_tensor_fails(parity, tmp_path, capsys, name: str, index: int, expected: str) -> None:
    folder = copy("latte", tmp_path / "latte", *LATTE_FC)
    change_tensor(folder / "trajectory_fc_fixed.safetensors", name, index)
    assert parity([str(tmp_path)]) == 1
    assert any(f"latte/{expected} " in line for line in failures(capsys.readouterr().out))


def test_a_flipped_decision_fails(parity, tmp_path, capsys) -> None:
    folder = copy("latte", tmp_path, *LATTE_FC)

    def flip(log: dict) -> None:
        log["fc_fixed"][21] |= {"temporal_attn": "computed", "spatial_attn_rows_computed": 4}

    change_json(folder / "decision_log.json", flip)
    assert parity([str(tmp_path)]) == 1
    lines = failures(capsys.readouterr().out)
    assert [line.split("  ")[0] for line in lines] == [
        f"trajectory_fc_fixed {way}{what}"
        for way in ("", "pipeline ")
        for what in ("decisions", "rows computed")
    ]
    assert "evaluation 22: temporal_attn computed in the log, reused here" in lines[0]


def test_a_changed_intermediate_or_weight_fails(parity, tmp_path, capsys) -> None:
    names = "transformer_forward.safetensors", "transformer_config.json", "transformer_weights.safetensors"
    folder = copy("latte", tmp_path / "one", *names)
    change_tensor(folder / names[0], "mid.temporal_transformer_blocks.1", 3)
    folder = copy("latte", tmp_path / "two", *names)
    change_tensor(folder / names[2], "proj_out.weight", 0)
    assert parity([str(tmp_path)]) == 1
    found = [line.split("  ")[0] for line in failures(capsys.readouterr().out)]
    assert "one/transformer_forward mid.*" in found
    assert "one/transformer_forward out" not in found
    assert "two/transformer_forward out" in found


def test_changed_vectors_units_and_bands_fail(parity, tmp_path, capsys) -> None:
    shutil.copy(DATA / "adacache_vectors.json", tmp_path)
    units = copy("opensora12/adacache", tmp_path / "adacache")
    bands = copy("opensora12/fastercache", tmp_path / "fastercache")
    assert parity([str(tmp_path)]) == 0

    def change_rate(vectors: list[dict]) -> None:
        vectors[3]["log"][4]["moreg"] += 1e-6
        vectors[4]["computed"].remove(17)

    change_json(tmp_path / "adacache_vectors.json", change_rate)
    change_json(units / "units.json", lambda cases: cases[3].update(new_rate=6))
    change_tensor(bands / "fft_units.safetensors", "s2.recovered_uncond", 0)
    capsys.readouterr()
    assert parity([str(tmp_path)]) == 1
    assert [line.split("  ")[0] for line in failures(capsys.readouterr().out)] == [
        "adacache_vectors moreg-ramp/100",
        "adacache_vectors moreg-step/30-fast",
        "adacache/units u3",
        "fastercache/fft_units s2 recovered",
    ]


def test_a_subfolder_uses_its_parents_model(parity, tmp_path, capsys) -> None:
    copy("cogvideox", tmp_path, "transformer_config_diffusers.json")
    copy("cogvideox", tmp_path, "transformer_weights_diffusers_keys.safetensors")
    copy("cogvideox", tmp_path / "traj", "trajectory_fc_fixed.safetensors", "decision_log.json")
    assert parity([str(tmp_path)]) == 0
    assert "traj/trajectory_fc_fixed model_out" in capsys.readouterr().out


def test_what_cannot_run_is_listed_but_proves_nothing(parity, tmp_path, capsys) -> None:
    folder = copy("latte", tmp_path / "other", *LATTE_FC)
    change_json(folder / "transformer_config.json", lambda config: config.update(foreign=1))
    assert parity([str(tmp_path)]) == 1  # nothing was compared
    text = capsys.readouterr().out
    assert "n/a" in text
    assert "0 ok, 0 failed, 1 not run" in text


def test_a_damaged_or_empty_folder_fails(parity, tmp_path, capsys) -> None:
    assert parity([str(tmp_path)]) == 1
    assert "no cases found" in capsys.readouterr().out
    copy("latte", tmp_path, "trajectory_fc_fixed.safetensors")
    shutil.copy(DATA / "adacache_vectors.json", tmp_path)
    assert parity([str(tmp_path)]) == 1
    lines = failures(capsys.readouterr().out)
    assert len(lines) == 1
    assert "no transformer config" in lines[0]
