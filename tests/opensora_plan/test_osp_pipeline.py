"""The pipeline's call: outputs, batches, guidance, prompts, samplers, and what it refuses."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.t5 import PromptTruncatedWarning
from tests.opensora_plan.osp_tiny import FRAMES, LATENT, LATENT_FRAMES, PIXELS, TEXT_WIDTH, tiny_pipeline

PROMPTS = ["a cat on a roof", "rain"]
SHAPE = (4, LATENT_FRAMES, LATENT, LATENT)


@pytest.fixture(scope="module")
def pipe() -> OpenSoraPlanPipeline:
    return tiny_pipeline()


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe, prompt=PROMPTS[0], **options):
    options = {"num_inference_steps": 4, "output_type": "latent", "generator": noise()} | options
    return pipe(prompt, **options).frames


def rows_of_text(pipe, *args, **options) -> torch.Tensor:
    """The text of the first transformer call."""
    seen: list[torch.Tensor] = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    run(pipe, *args, **options)
    handle.remove()
    return seen[0]


def test_output_types(pipe) -> None:
    array = run(pipe, output_type="np")
    tensor = run(pipe, output_type="pt")
    images = run(pipe, output_type="pil")
    assert array.shape == (1, FRAMES, PIXELS, PIXELS, 3)
    assert array.std() > 0.01
    assert np.array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    assert [len(clip) for clip in images] == [FRAMES]
    assert isinstance(images[0][0], PIL.Image.Image)
    assert run(pipe).shape == (1, *SHAPE)
    (latents,) = pipe("a", num_inference_steps=4, output_type="latent", return_dict=False)
    assert latents.shape == (1, *SHAPE)


def test_frames_are_the_decoded_latents(pipe) -> None:
    with torch.no_grad():
        video = pipe.vae.decode(run(pipe) / 0.18215).sample
    expected = (video / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 4, 1).numpy()
    np.testing.assert_allclose(run(pipe, output_type="np"), expected, atol=1e-6)


def test_a_seed_is_a_video(pipe) -> None:
    assert torch.equal(run(pipe), run(pipe))
    assert not torch.equal(run(pipe), run(pipe, generator=noise(1)))
    latents = torch.randn(1, *SHAPE, generator=noise())
    assert torch.equal(run(pipe, latents=latents), run(pipe))


def test_several_videos_of_a_prompt_are_those_of_its_seeds(pipe) -> None:
    pair = run(pipe, num_videos_per_prompt=2, generator=[noise(0), noise(1)])
    single = torch.cat([run(pipe, generator=noise(seed)) for seed in (0, 1)])
    torch.testing.assert_close(pair, single, atol=1e-4, rtol=1e-4)


def test_a_batch_of_prompts_is_in_order(pipe) -> None:
    """Prompts that share a batch are padded, so the same prompt twice is the yardstick."""
    pair = run(pipe, PROMPTS, generator=[noise(0), noise(1)])
    for index, prompt in enumerate(PROMPTS):
        twins = run(pipe, [prompt] * 2, generator=[noise(0), noise(1)])
        torch.testing.assert_close(pair[index], twins[index], atol=1e-4, rtol=1e-4)
    four = run(pipe, PROMPTS, num_videos_per_prompt=2, generator=[noise(s) for s in (0, 2, 1, 3)])
    torch.testing.assert_close(four[[0, 2]], pair, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("scale", "rows"), [(1.0, 2), (0.0, 2), (2.5, 4)])
def test_guidance_is_one_call_with_both_halves(pipe, scale: float, rows: int) -> None:
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    run(pipe, PROMPTS, guidance_scale=scale)
    handle.remove()
    assert seen == [(rows, *SHAPE)] * 13  # 4 steps of PNDM
    assert pipe.num_timesteps == 13
    assert pipe.guidance_scale == scale
    assert pipe.do_classifier_free_guidance == (scale > 1)


def test_one_prompt_is_cut_where_it_ends_and_the_empty_one_with_it(pipe) -> None:
    text = rows_of_text(pipe, "a cat")
    assert text.shape == (2, 6, TEXT_WIDTH)  # five letters and the end
    empty = pipe.encode_prompt("", "")
    assert empty.shape == (2, 1, TEXT_WIDTH)
    assert torch.equal(empty[0], empty[1])
    torch.testing.assert_close(text[0, :1], empty[0])
    assert text[0, 1:].abs().amin(dim=0).max() > 0  # embeddings of padding, not zeros


def test_several_prompts_are_zero_after_their_ends(pipe) -> None:
    text = rows_of_text(pipe, ["a cat", "dogs"])
    assert text.shape == (4, 300, TEXT_WIDTH)
    ends = [int(row.abs().sum(dim=-1).nonzero().max()) + 1 for row in text]
    assert ends == [300, 300, 6, 5]
    alone = rows_of_text(pipe, "a cat")
    torch.testing.assert_close(text[2, :6], alone[1])


def test_prompts_are_cleaned_unless_told_otherwise(pipe) -> None:
    plain = rows_of_text(pipe, "A   cat!! https://example.com/x")
    assert torch.equal(plain, rows_of_text(pipe, "a cat!!"))
    raw = rows_of_text(pipe, "  A   cat!! ", clean_caption=False)
    assert raw.shape[1] == len("a   cat!!") + 1


def test_a_long_prompt_warns_of_what_is_cut(pipe) -> None:
    with pytest.warns(PromptTruncatedWarning, match=r"320 tokens, allowed: 300; this part was cut: 'b b b"):
        text = rows_of_text(pipe, "a" * 299 + "b" * 20)
    assert text.shape[1] == 300


def test_a_negative_prompt_longer_than_the_prompt_warns(pipe) -> None:
    with pytest.warns(
        PromptTruncatedWarning, match="negative_prompt: 'bad and blurry' has 15 tokens; only the"
    ):
        text = rows_of_text(pipe, "a cat", negative_prompt="bad and blurry")
    assert text.shape[1] == 6


def test_negative_prompts_and_embeddings(pipe) -> None:
    plain = run(pipe)
    assert torch.equal(plain, run(pipe, negative_prompt=""))
    assert not torch.allclose(plain, run(pipe, negative_prompt="dark"))
    text = rows_of_text(pipe)
    embeds = {"prompt_embeds": text[1:], "negative_prompt_embeds": text[:1]}
    assert torch.equal(plain, run(pipe, None, **embeds))
    assert torch.equal(plain, run(pipe, None, prompt_embeds=text[1:]))


def test_other_sizes(pipe) -> None:
    latents = run(pipe, height=48, width=80, num_frames=FRAMES)
    assert latents.shape == (1, 4, LATENT_FRAMES, 6, 10)


@pytest.mark.parametrize(
    ("scheduler", "evaluations"),
    [
        (DDIMScheduler(), 4),
        (EulerDiscreteScheduler(), 4),
        (DPMSolverMultistepScheduler(), 4),
        (DDPMScheduler(), 4),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # diffusers' schedulers with numpy 2
def test_any_scheduler(pipe, scheduler, evaluations: int) -> None:
    other = tiny_pipeline(transformer=pipe.transformer, vae=pipe.vae, scheduler=scheduler)
    latents = run(other)
    assert other.num_timesteps == evaluations
    assert torch.isfinite(latents).all()
    torch.manual_seed(1)  # nothing is drawn but from the generator
    assert torch.equal(latents, run(other))


def test_callback_replaces_latents_and_interrupts(pipe) -> None:
    indices = []

    def stop(pipe, index, timestep, tensors):
        indices.append(index)
        pipe._interrupt = index == 2
        return {"latents": torch.zeros_like(tensors["latents"])}

    assert run(pipe, callback_on_step_end=stop).abs().max() == 0
    assert indices == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 65}, "num_frames: given 65, allowed: 5 for this checkpoint"),
        ({"height": 50}, "height: given 50, allowed: a multiple of 16; nearest: 48"),
        ({"width": 8.0}, "width: given 8.0, allowed: a multiple of 16"),
        ({"num_inference_steps": 3}, "num_inference_steps: given 3, allowed: 4 or more with PNDM"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"guidance_scale": -1}, "guidance_scale is -1"),
        ({"output_type": "video"}, "output_type is 'video'"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0"),
        (
            {"latents": torch.zeros(1, 4, 2, 4, 4)},
            r"latents has shape \(1, 4, 2, 4, 4\); allowed: \(1, 4, 2, 8, 8",
        ),
        ({"generator": [noise(), noise()]}, "generator has 2 entries"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 entries"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "names"),
        ({"prompt": None}, "prompt: given None, allowed: text, or prompt_embeds"),
        ({"prompt": []}, "prompt is an empty list"),
        (
            {"prompt_embeds": torch.zeros(1, 3, TEXT_WIDTH)},
            "prompt: given 'a cat on a roof', allowed: None beside",
        ),
        (
            {"prompt": None, "prompt_embeds": torch.zeros(1, 3, 5)},
            r"prompt_embeds: given \(1, 3, 5\), allowed: a t",
        ),
        ({"negative_prompt_embeds": torch.zeros(1, 3, TEXT_WIDTH)}, "None without prompt_embeds"),
        (
            {
                "prompt": None,
                "prompt_embeds": torch.zeros(1, 3, TEXT_WIDTH),
                "negative_prompt_embeds": torch.zeros(1, 4, TEXT_WIDTH),
            },
            r"negative_prompt_embeds: given \(1, 4, 16\), allowed: \(1, 3, 16\)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named_before_any_work(pipe, options: dict, message: str) -> None:
    calls = []
    handle = pipe.text_encoder.register_forward_pre_hook(lambda *args: calls.append(args))
    with pytest.raises(ValueError, match=message):
        run(pipe, **options)
    handle.remove()
    assert not calls


def test_a_pipeline_without_parts_says_what_it_needs() -> None:
    whole = tiny_pipeline()
    bare = OpenSoraPlanPipeline(None, None, None, whole.transformer, whole.scheduler)
    with pytest.raises(
        ValueError, match="prompt_embeds and negative_prompt_embeds, as the pipeline has no text"
    ):
        run(bare)
    embeds = {"prompt_embeds": torch.zeros(1, 3, TEXT_WIDTH)}
    with pytest.raises(ValueError, match="as the pipeline has no text encoder"):
        run(bare, None, **embeds)
    bare.set_progress_bar_config(disable=True)
    assert run(bare, None, **embeds, guidance_scale=1).shape == (1, *SHAPE)
    with pytest.raises(
        ValueError, match="output_type: given 'np', allowed: 'latent', as the pipeline has no vae"
    ):
        run(bare, None, **embeds, guidance_scale=1, output_type="np")


def test_a_sampler_of_velocities_is_refused(pipe) -> None:
    other = OpenSoraPlanPipeline(**pipe.components | {"scheduler": FlowMatchEulerDiscreteScheduler()})
    with pytest.raises(ValueError, match="scheduler: given 'FlowMatchEulerDiscreteScheduler', allowed: one"):
        run(other)


def test_a_negative_prompt_without_guidance_is_said_to_do_nothing(pipe) -> None:
    with pytest.warns(UserWarning, match="negative_prompt: has no effect with guidance_scale 1.0"):
        run(pipe, negative_prompt="blurry", guidance_scale=1.0)


def test_embeddings_keep_no_graph(pipe) -> None:
    assert not pipe.encode_prompt("a cat").requires_grad
