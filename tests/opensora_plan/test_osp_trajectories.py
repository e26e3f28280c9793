"""150 PNDM steps against the recorded ones: plain, and FasterCache with its decisions."""

from __future__ import annotations

import pytest
import torch
from diffusers import PNDMScheduler
from safetensors.torch import load_file

import keystep
from keystep.models.opensora_plan.loading import build_transformer
from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.transformer import temporal_scale, transformer_arguments
from tests.opensora_plan.osp_tiny import DATA, TRANSFORMER, tiny_pipeline
from tests.parity.decisions import different_counts, different_decisions, norm_error, record
from tests.parity.folder import read_json

CONFIG, WEIGHTS = DATA / "transformer_config.json", DATA / "transformer_weights.safetensors"
TOLERANCE = 1e-5


def recorded() -> dict[str, torch.Tensor]:
    return load_file(DATA / "latents_of_trajectories.safetensors")


def build() -> OpenSoraPlanPipeline:
    transformer = record(build_transformer(read_json(CONFIG), load_file(WEIGHTS), WEIGHTS))
    pipe = OpenSoraPlanPipeline(None, None, None, transformer, PNDMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe: OpenSoraPlanPipeline, first: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """The latents after every evaluation, and the timesteps."""
    negative, positive = recorded()["encoder_hidden_states"][:, 0].chunk(2)
    states, times = [first], []

    def keep(pipe, index, timestep, tensors):
        states.append(tensors["latents"])
        times.append(int(timestep))
        return {}

    height, width = (8 * extent for extent in first.shape[3:])
    pipe(
        prompt_embeds=positive,
        negative_prompt_embeds=negative,
        latents=first,
        height=height,
        width=width,
        output_type="latent",
        callback_on_step_end=keep,
    )
    return torch.stack(states), times


def assert_matches(states: torch.Tensor, golden: torch.Tensor) -> None:
    ours = states[[0, *range(10, len(states) - 1, 10), len(states) - 1]]
    for k, (a, b) in enumerate(zip(ours, golden, strict=True)):
        assert (a - b).norm() < TOLERANCE * b.norm(), k


def test_150_steps_are_159_evaluations_with_the_recorded_latents() -> None:
    golden, pipe = recorded(), build()
    states, times = generate(pipe, golden["plain.latents"][0])
    assert times == golden["timesteps"].tolist()
    assert pipe.num_timesteps == len(pipe.transformer.outputs) == 159
    assert_matches(states, golden["plain.latents"])


def test_fastercache_makes_the_recorded_decisions_and_latents() -> None:
    golden, pipe, log = recorded(), build(), read_json(DATA / "decision_log.json")["fc_fixed"]
    with keystep.accelerate(pipe, "fastercache") as session:
        states, _ = generate(pipe, golden["fc_fixed.latents"][0])
    assert session.trace is not None
    assert_matches(states, golden["fc_fixed.latents"])
    assert (states[-1] - golden["plain.latents"][-1]).norm() > 100 * TOLERANCE * states[-1].norm()
    rows, model = session.trace.rows, pipe.transformer
    assert len(rows) == len(log) == len(model.counts)
    for entry, row, counts, output in zip(log, rows, model.counts, model.outputs, strict=True):
        assert not different_decisions(entry, row, 2)
        assert not different_counts(entry, counts)
        assert norm_error(entry, output) < 1e-4
    full = [row for row in rows if len(row.branches) == 2]
    reused = [row for row in rows if "attention" in row.skipped]
    assert (len(full), len(reused)) == (59, 76)


def test_few_pndm_steps_scale_the_schedule() -> None:
    pipe = tiny_pipeline()
    with keystep.accelerate(pipe, "fastercache") as session:
        pipe(
            "a cat", num_inference_steps=30, output_type="latent", generator=torch.Generator().manual_seed(0)
        )
    trace = session.trace
    assert trace is not None
    assert len(trace.rows) == 39
    assert any("attention" in row.skipped for row in trace.rows)
    assert any(len(row.branches) == 1 for row in trace.rows)


@pytest.mark.parametrize(("frames", "scale"), [(1, 1), (5, 1), (16, 1), (17, 1), (32, 2), (33, 2), (56, 3)])
def test_temporal_positions_are_denser_in_longer_videos(frames: int, scale: int) -> None:
    assert temporal_scale(frames) == scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_rope": True}, "config.use_rope: given True, allowed: False"),
        ({"compress_kv_factor": 2}, "config.compress_kv_factor: given 2, allowed: 1"),
        ({"video_lenght": 17}, "unknown config field 'video_lenght'; did you mean video_length"),
    ],
)
def test_configs_of_another_transformer(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer_arguments(TRANSFORMER | change)
