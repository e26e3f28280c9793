"""The pipeline: order of calls, guidance, batches, prompts, outputs, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import keystep
from keystep.models.vchitect import pipeline as module
from keystep.models.vchitect.guidance import guidance_weight
from keystep.models.vchitect.loading import LOADERS
from keystep.models.vchitect.output import decode
from tests.parity.vchitect_trajectory import different_decisions
from tests.vchitect.conftest import make_pipeline

LOG = Path(__file__).parents[1] / "data" / "vchitect2" / "decision_log.json"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def calls(pipe) -> Any:
    """The text tensor of every transformer call."""
    seen: list[torch.Tensor] = []

    def record(model: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["encoder_hidden_states"])

    handle = pipe.transformer.register_forward_pre_hook(record, with_kwargs=True)
    yield seen
    handle.remove()


def test_guidance_weights_are_the_recorded_ones() -> None:
    for variant in json.loads(LOG.read_text()).values():
        weights = [guidance_weight(7.5, entry["t"], len(variant)) for entry in variant]
        assert weights == [entry["guidance"] for entry in variant]


def test_decisions_of_fastercache_are_the_recorded_ones(pipe, small) -> None:
    with keystep.accelerate(pipe, "fastercache") as session:
        pipe("a dog", **small | {"num_inference_steps": 100})
    log = json.loads(LOG.read_text())["fc_branchcache"]
    assert session.trace.model == "vchitect"
    differences = [
        different_decisions(entry | {"t": row.timestep}, row)
        for entry, row in zip(log, session.trace.rows, strict=True)
    ]
    assert not any(differences)


def test_the_conditional_call_comes_first(pipe, small, calls) -> None:
    pipe("a dog", negative_prompt="blurry", generator=generator(), **small)
    cond, uncond, *others = calls
    assert len(others) == 2
    assert others[0] is cond
    assert others[1] is uncond
    calls.clear()
    pipe("blurry", guidance_scale=1.0, generator=generator(), **small)
    assert len(calls) == 2
    assert torch.equal(calls[0], uncond)


def test_a_weight_of_one_still_takes_two_calls(pipe, small, calls) -> None:
    pipe("a dog", guidance_scale=1.0, generator=generator(), **small)
    plain = pipe("a dog", guidance_scale=1.0, generator=generator(), **small).frames
    calls.clear()
    with patch.object(module, "guidance_weight", lambda *_: 1.0):
        guided = pipe("a dog", guidance_scale=7.5, generator=generator(), **small).frames
    assert len(calls) == 2 * small["num_inference_steps"]
    torch.testing.assert_close(guided, plain)


def test_videos_of_a_batch_are_those_made_alone(pipe, small) -> None:
    prompts = ["a dog runs", "a cat sleeps in the sun"]
    generators = [generator(seed) for seed in range(4)]
    batch = pipe(prompts, "blurry", num_videos_per_prompt=2, generator=generators, **small).frames
    assert batch.shape == (4, 3, 4, 4, 6)
    for row in range(4):
        alone = pipe(prompts[row // 2], "blurry", generator=generator(row), **small).frames
        torch.testing.assert_close(batch[row : row + 1], alone, rtol=1e-4, atol=1e-4)


def test_the_same_generator_gives_the_same_video_and_prompts_matter(pipe, small) -> None:
    def sample(*texts: str) -> torch.Tensor:
        return pipe(*texts, generator=generator(), **small).frames

    assert torch.equal(sample("a dog"), sample("a dog"))
    assert torch.equal(sample("a dog"), sample("a dog", ""))
    assert not torch.equal(sample("a dog"), sample("a cat"))
    assert not torch.equal(sample("a dog"), sample("a dog", "blurry"))


def test_embeddings_and_latents_in_place_of_text_and_seed(pipe, small) -> None:
    expected = pipe(["a dog", "a cat"], generator=generator(), **small).frames
    cond, uncond = pipe._embed(["a dog", "a cat"]), pipe._embed(["", ""])
    latents = torch.randn(2, 3, 4, 4, 6, generator=generator())
    given = pipe(
        prompt_embeds=cond.tokens,
        pooled_prompt_embeds=cond.pooled,
        negative_prompt_embeds=uncond.tokens,
        negative_pooled_prompt_embeds=uncond.pooled,
        latents=latents,
        **small,
    ).frames
    assert torch.equal(given, expected)


def test_outputs(pipe, small) -> None:
    def sample(kind: str, **options: Any) -> Any:
        return pipe("a dog", generator=generator(), **small | {"output_type": kind}, **options)

    video = sample("np").frames
    assert video.shape == (1, 3, 32, 48, 3)
    assert 0 <= video.min() < video.max() <= 1
    np.testing.assert_array_equal(sample("pt").frames.permute(0, 1, 3, 4, 2).numpy(), video)
    images = sample("pil").frames[0]
    assert [image.size for image in images] == [(48, 32)] * 3
    (plain,) = sample("np", return_dict=False)
    np.testing.assert_array_equal(plain, video)
    np.testing.assert_allclose(sample("np", decode_chunk_size=1).frames, video, atol=1e-5)


def test_decoding_scales_shifts_and_keeps_frames_in_order() -> None:
    class Vae:
        config = {"scaling_factor": 2.0, "shift_factor": 0.5}
        dtype = torch.float32
        sizes: list[int] = []

        def decode(self, rows: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
            self.sizes.append(len(rows))
            return (rows[:, :3],)

    latents = torch.randn(2, 5, 4, 2, 3)
    video = decode(Vae(), latents, chunk_size=4)
    torch.testing.assert_close(video, (latents[:, :, :3] / 2 + 0.5).transpose(1, 2))
    assert Vae.sizes == [4, 4, 2]


def test_callbacks_see_and_replace_latents_and_stop(pipe, small) -> None:
    seen = []

    def zero(pipe: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, timestep.item(), tensors["latents"].shape))
        return {"latents": torch.zeros_like(tensors["latents"])}

    frames = pipe("a dog", callback_on_step_end=zero, **small).frames
    assert not frames.any()
    assert [step for step, _, _ in seen] == [0, 1]
    assert [time for _, time, _ in seen] == pipe.scheduler.timesteps.tolist()

    def stop(pipe: Any, step: int, *_: Any) -> dict[str, Any]:
        pipe._interrupt = True
        return {}

    many = small | {"num_inference_steps": 5}
    first = pipe("a dog", generator=generator(), callback_on_step_end=stop, **many).frames
    assert pipe.interrupt
    assert not torch.equal(first, pipe("a dog", generator=generator(), **many).frames)


def test_offload_knows_every_model(pipe) -> None:
    models = {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipe.model_cpu_offload_seq.split("->")) == models
    assert set(pipe.components) == set(LOADERS)


def test_offload_changes_nothing(small) -> None:
    pipe = make_pipeline()
    small["output_type"] = "pt"
    expected = pipe("a dog", generator=generator(), **small).frames
    pipe.enable_model_cpu_offload(device="cpu")
    assert all(hasattr(pipe.components[name], "_hf_hook") for name in pipe.model_cpu_offload_seq.split("->"))
    torch.testing.assert_close(pipe("a dog", generator=generator(), **small).frames, expected)


EMBEDS, POOLED = torch.zeros(1, 5, 24), torch.zeros(1, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt is None"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt_embeds": EMBEDS}, "prompt: given 'a dog', allowed: nothing beside prompt_embeds"),
        ({"prompt": None, "prompt_embeds": EMBEDS}, "pooled_prompt_embeds: given None"),
        ({"prompt": None, "pooled_prompt_embeds": torch.zeros(1, 10)}, "prompt_embeds: given None"),
        (
            {"negative_prompt_embeds": torch.zeros(2, 5, 24), "negative_pooled_prompt_embeds": EMBEDS},
            r"negative_prompt_embeds: given \(2, 5, 24\), allowed: a tensor \(1, tokens, 24\)",
        ),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 5, 7), "pooled_prompt_embeds": POOLED},
            r"prompt_embeds: given \(1, 5, 7\), allowed: a tensor \(prompts, tokens, 24\)",
        ),
        (
            {"prompt": None, "prompt_embeds": EMBEDS, "pooled_prompt_embeds": POOLED[:, :9]},
            r"pooled_prompt_embeds: given \(1, 9\), allowed: a tensor \(1, 10\)",
        ),
        (
            {"prompt": None, "prompt_embeds": "a dog", "pooled_prompt_embeds": POOLED},
            "prompt_embeds: given 'str', allowed: a tensor",
        ),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 entries"),
        ({"height": 40}, "height: given 40, allowed: a multiple of 16, such as 32"),
        ({"width": 112}, "width: given 112, allowed: up to 96"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_inference_steps": 1.5}, "num_inference_steps is 1.5"),
        ({"guidance_scale": -1}, "guidance_scale is -1"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0"),
        ({"decode_chunk_size": 0}, "decode_chunk_size is 0"),
        ({"output_type": "gif"}, "output_type is 'gif'"),
        ({"latents": torch.zeros(1, 3, 4, 4, 4)}, r"latents has shape .* allowed: \(1, 3, 4, 4, 6\)"),
        ({"generator": [generator()] * 2}, "generator has 2 entries"),
        ({"callback_on_step_end_tensor_inputs": ["x"]}, r"names \['x'\]"),
    ],
)
def test_bad_input_is_named_before_anything_runs(
    pipe, small, calls, change: dict[str, Any], message: str
) -> None:
    with (
        patch.object(type(pipe), "_embed", side_effect=AssertionError("text was encoded")),
        pytest.raises(ValueError, match=message),
    ):
        pipe(**{"prompt": "a dog", **small, **change})
    assert not calls


def test_missing_parts_are_named(pipe, small) -> None:
    parts = dict(pipe.components)
    bare = type(pipe)(parts["transformer"], parts["scheduler"], *[None] * 7)
    with pytest.raises(ValueError, match="has no text_encoder, text_encoder_2, text_encoder_3"):
        bare("a dog", **small)
    with pytest.raises(ValueError, match="'latent': the pipeline has no vae"):
        bare("a dog", **small | {"output_type": "np"})
