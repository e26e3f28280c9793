import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from keystep.models.toy.build import SHIFT, build_scheduler, build_transformer
from keystep.models.toy.decoder import SceneDecoder
from keystep.models.toy.pipeline import ToyPipeline
from keystep.models.toy.text import build_text_encoder, build_tokenizer

PROMPTS = ["a small red circle moving left slowly on a dark background", "large blue cross resting"]

LATENT_SHAPE = (1, 9, 16, 16, 16)


def make_pipe():
    torch.manual_seed(0)
    transformer = build_transformer(num_layers=1)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.02)
    torch.nn.init.normal_(transformer.transformer_blocks[0].attn2.to_out[0].weight, std=0.1)
    encoder, decoder = build_text_encoder(), SceneDecoder(width=16, num_blocks=1)
    pipe = ToyPipeline(
        transformer.eval(), build_scheduler(), encoder.eval(), build_tokenizer(), decoder.eval()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe():
    return make_pipe()


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def run(pipe, prompt=PROMPTS[0], seed=0, num_inference_steps=2, **options):
    options.setdefault("generator", noise(seed))
    return pipe(prompt, num_inference_steps=num_inference_steps, **options).frames


def test_batch_of_two(pipe):
    frames = run(pipe, PROMPTS)
    assert frames.shape == (2, 16, 64, 64, 3)
    assert frames.dtype == np.float32
    assert frames.min() >= 0 and frames.max() <= 1


def test_same_generator_same_clip(pipe):
    assert np.array_equal(run(pipe), run(pipe))
    assert not np.array_equal(run(pipe), run(pipe, seed=1))


def test_rows_of_a_batch_equal_single_calls(pipe):
    batch = run(pipe, PROMPTS, generator=[noise(0), noise(1)])
    single = np.concatenate([run(pipe, prompt, seed=seed) for seed, prompt in enumerate(PROMPTS)])
    np.testing.assert_allclose(batch, single, atol=1e-5)


@pytest.mark.parametrize(("guidance_scale", "rows"), [(1.0, 2), (0.0, 2), (2.5, 4)])
def test_guidance_is_one_transformer_call_a_step(pipe, guidance_scale, rows):
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    run(pipe, PROMPTS, num_inference_steps=3, guidance_scale=guidance_scale)
    handle.remove()
    assert seen == [rows] * 3
    assert pipe.num_timesteps == 3
    assert pipe.guidance_scale == guidance_scale
    assert pipe.do_classifier_free_guidance == (guidance_scale > 1)


def test_rows_are_unconditional_then_conditional(pipe):
    seen = []
    handle = pipe.transformer.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    run(pipe, num_inference_steps=1)
    handle.remove()
    assert seen[0][0].abs().max() == 0
    assert seen[0][1].abs().max() > 0


def test_negative_prompt_changes_the_clip(pipe):
    plain = run(pipe, output_type="latent")
    assert torch.equal(plain, run(pipe, negative_prompt="", output_type="latent"))
    assert not torch.equal(plain, run(pipe, negative_prompt="red circle", output_type="latent"))


def test_latents_in(pipe):
    latents = torch.randn(LATENT_SHAPE, generator=noise())
    assert np.array_equal(run(pipe, latents=latents, generator=None), run(pipe))


def test_output_types(pipe):
    array = run(pipe, PROMPTS)
    tensor = run(pipe, PROMPTS, output_type="pt")
    images = run(pipe, PROMPTS, output_type="pil")
    latents = run(pipe, PROMPTS, output_type="latent")
    assert np.array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    assert [len(clip) for clip in images] == [16, 16]
    assert isinstance(images[0][0], PIL.Image.Image)
    assert latents.shape == (2, *LATENT_SHAPE[1:])


def test_tuple_and_several_videos_a_prompt(pipe):
    (frames,) = pipe(
        PROMPTS, num_inference_steps=1, num_videos_per_prompt=2, generator=noise(), return_dict=False
    )
    assert frames.shape[0] == 4
    generators = [noise(0), noise(1), noise(0), noise(1)]
    frames = run(pipe, PROMPTS[:1] * 2, num_videos_per_prompt=2, generator=generators)
    np.testing.assert_allclose(frames[:2], frames[2:], atol=1e-5)


def test_callback_sees_and_replaces_latents(pipe):
    steps = []

    def callback(pipe, step, timestep, tensors):
        steps.append((step, float(timestep)))
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = run(pipe, num_inference_steps=3, callback_on_step_end=callback, output_type="latent")
    assert [step for step, _ in steps] == [0, 1, 2]
    assert steps[0][1] == 1000.0
    assert latents.abs().max() == 0


def test_callback_can_interrupt(pipe):
    calls = []

    def callback(pipe, step, timestep, tensors):
        calls.append(step)
        pipe._interrupt = True
        return {}

    run(pipe, num_inference_steps=4, callback_on_step_end=callback)
    assert calls == [0]
    run(pipe)
    assert not pipe.interrupt


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # numpy 2, inside diffusers
def test_other_schedulers(pipe):
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": SHIFT}
    for scheduler in (UniPCMultistepScheduler(**flow), DPMSolverMultistepScheduler(**flow)):
        other = ToyPipeline.from_pipe(pipe, scheduler=scheduler)
        other.set_progress_bar_config(disable=True)
        frames = run(other, num_inference_steps=4)
        assert other.scheduler is scheduler
        assert frames.shape == (1, 16, 64, 64, 3)
        assert np.isfinite(frames).all()


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    loaded = ToyPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(run(pipe), run(loaded))


def test_unknown_words_are_named(pipe):
    with pytest.warns(UserWarning, match=r"does not know \['turquoise', 'dog'\]; known words: small, large"):
        run(pipe, "a turquoise dog moving left", num_inference_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(pipe, "A small, red circle!", num_inference_steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": 3}, "prompt is 3; allowed: a str or a list of str"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"prompt": ["red", None]}, "prompt is .*None.*; allowed"),
        ({"negative_prompt": ["a", "b"]}, "negative_prompt has 2 entries; allowed: one str, or a list of 1"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; allowed: a whole number >= 1"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is 2.5"),
        ({"num_videos_per_prompt": True}, "num_videos_per_prompt is True"),
        ({"guidance_scale": -1}, "guidance_scale is -1; allowed"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; allowed"),
        ({"output_type": "gif"}, "output_type is 'gif'; allowed: 'np', 'pt', 'pil', 'latent'"),
        ({"latents": torch.zeros(1, 2)}, r"latents has shape \(1, 2\); allowed: \(1, 9, 16, 16, 16\)"),
        ({"latents": 1}, "latents is a int; allowed"),
        ({"generator": 7}, "generator is 7; allowed"),
        ({"generator": [torch.Generator()] * 2}, "generator has 2 entries"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, r"names \['noise'\]; allowed: \['latents'\]"),
    ],
)
def test_bad_input_is_named(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(**({"prompt": PROMPTS[0]} | options))
