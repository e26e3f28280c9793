"""The parity cases for Vchitect-2.0 fail where a recording is changed; trajectories are of our own making."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import keystep
from keystep.models.vchitect.guidance import guidance_weight
from tests.parity.trajectory import method_of

GOLDENS = Path(__file__).parents[1] / "data" / "vchitect2"
STEPS = 40


@pytest.fixture
def failures(capsys) -> Callable[[Path], list[str]]:
    """Runs the runner; the quantities that failed."""
    main = importlib.import_module("tests.parity.__main__").main

    def run(folder: Path) -> list[str]:
        status = main([str(folder)])
        lines = [line for line in capsys.readouterr().out.splitlines() if "  FAIL" in line]
        assert status == bool(lines)
        return [line.split("  ")[0].strip() for line in lines]

    return run


def change(path: Path, name: str, index: int) -> None:
    tensors = load_file(path)
    tensors[name][index] *= 1.01
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("file", "name", "expected"),
    [
        ("transformer_forward", "case2.out", ["transformer_forward case2 out"]),
        (
            "transformer_forward",
            "case0.mid.transformer_blocks.1(ctx,hidden).0",
            ["transformer_forward case0 mid.*"],
        ),
        (
            "transformer_forward",
            "case0.mid.transformer_blocks.0.sdpa_cross(B,heads,seq,dim)",
            ["transformer_forward case0 mid.*"],
        ),
        ("text", "negative_pooled_prompt_embeds", ["text negative_pooled_prompt_embeds"]),
        ("text_weights_clip_g", "text_projection.weight", ["text pooled_prompt_embeds"]),
    ],
)
def test_changed_recordings_fail(failures, tmp_path, file: str, name: str, expected: list[str]) -> None:
    shutil.copytree(GOLDENS, tmp_path, dirs_exist_ok=True)
    change(tmp_path / f"{file}.safetensors", name, 0)
    found = failures(tmp_path)
    assert found[: len(expected)] == expected


def log_entry(row: Any, weight: float) -> dict[str, Any]:
    done = "reused" if "attention" in row.skipped else "computed"
    calls = [[branch, done] for branch in row.branches]
    return {"t": row.timestep, "guidance": weight, "calls": calls}


def write_trajectory(folder: Path, pipe: Any, small: dict[str, Any]) -> None:
    """A generation of `pipe` under FasterCache, as the reference's would be recorded."""
    outputs, states = [], []
    cond, uncond = pipe._embed(["a dog"]), pipe._embed([""])
    texts = {
        "prompt_embeds": cond.tokens,
        "pooled_prompt_embeds": cond.pooled,
        "negative_prompt_embeds": uncond.tokens,
        "negative_pooled_prompt_embeds": uncond.pooled,
    }
    first = torch.randn(1, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))

    def keep(pipe: Any, step: int, t: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        states.append(values["latents"][0])
        return {}

    predict = pipe._predict

    def watched(*args: Any) -> torch.Tensor:
        outputs.append(predict(*args)[0])
        return outputs[-1][None]

    pipe._predict = watched
    with keystep.accelerate(pipe, method_of("fc_branchcache", "vchitect", STEPS)) as session:
        pipe(**texts, latents=first, callback_on_step_end=keep, **small | {"num_inference_steps": STEPS})
    del pipe._predict
    times, sigmas = pipe.scheduler.timesteps, pipe.scheduler.sigmas
    weights = [guidance_weight(7.5, t, STEPS) for t in times.tolist()]
    tensors = {
        "latents(step,F,C,H,W)": torch.stack([first[0], *states]),
        "noise_pred_after_guidance": torch.stack(outputs),
        "timesteps": times.clone(),
        "sigmas": sigmas.clone(),
        "guidance": torch.tensor(weights, dtype=torch.float64),
    }
    log = [log_entry(row, weight) for row, weight in zip(session.trace.rows, weights, strict=True)]
    save_file(tensors, folder / "trajectory_fc_branchcache.safetensors")
    save_file({key: value.contiguous() for key, value in texts.items()}, folder / "text.safetensors")
    save_file(pipe.transformer.state_dict(), folder / "transformer_weights.safetensors")
    config = {key: value for key, value in pipe.transformer.config.items() if not key.startswith("_")}
    (folder / "transformer_config.json").write_text(json.dumps(config))
    (folder / "decision_log.json").write_text(json.dumps({"fc_branchcache": log}))


def test_changed_trajectories_fail(failures, pipe, small, tmp_path, monkeypatch) -> None:
    write_trajectory(tmp_path, pipe, small)
    monkeypatch.setattr("tests.parity.vchitect.run_text", lambda name, path: ())  # no encoders there
    name = "trajectory_fc_branchcache"
    assert failures(tmp_path) == []

    log = json.loads((tmp_path / "decision_log.json").read_text())
    log["fc_branchcache"][35]["calls"] = [["cond", "computed"], ["uncond", "computed"]]
    (tmp_path / "decision_log.json").write_text(json.dumps(log))
    assert failures(tmp_path) == [f"{name} decisions", f"{name} rows computed"]

    path = tmp_path / f"{name}.safetensors"
    for key in ("guidance", "sigmas"):
        change(path, key, 3)
    change(path, "latents(step,F,C,H,W)", 20)
    found = failures(tmp_path)
    assert {f"{name} {what}" for what in ("guidance", "sigmas", "steps", "latents")} <= set(found)
    assert f"{name} timesteps" not in found
