"""The second toy pipeline, untrained: one call a guidance branch, positions beside the latents."""

import numpy as np
import pytest
import torch

from keystep.models.toy.build import build_flow_transformer, build_scheduler
from keystep.models.toy.decoder import SceneDecoder
from keystep.models.toy.flow import ToyFlowPipeline
from keystep.models.toy.positions import with_positions
from keystep.models.toy.text import build_text_encoder, build_tokenizer, embed_prompts
from keystep.models.toy.train.denoiser_task import FlowDenoiserTask
from keystep.models.toy.train.loop import Settings, Trainer

PROMPTS = ["a small red circle moving left slowly on a dark background", "large blue cross resting"]


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    transformer = build_flow_transformer(num_layers=1)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.02)
    torch.nn.init.normal_(transformer.blocks[0].attn2.to_out[0].weight, std=0.1)
    encoder, decoder = build_text_encoder(), SceneDecoder(width=16, num_blocks=1)
    pipe = ToyFlowPipeline(
        transformer.eval(), build_scheduler(), encoder.eval(), build_tokenizer(), decoder.eval()
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(seed=0):
    return torch.Generator().manual_seed(seed)


def run(pipe, prompt=PROMPTS[0], num_inference_steps=2, **options):
    options.setdefault("generator", noise())
    return pipe(prompt, num_inference_steps=num_inference_steps, **options).frames


def record_calls(pipe, **options):
    calls = []
    handle = pipe.transformer.register_forward_pre_hook(lambda module, args: calls.append(args))
    try:
        frames = run(pipe, **options)
    finally:
        handle.remove()
    return calls, frames


def test_positions_are_appended_and_run_from_minus_one_to_one():
    latents = torch.randn(2, 9, 16, 4, 5, generator=noise())
    rows = with_positions(latents)
    assert rows.shape == (2, 12, 16, 4, 5)
    assert torch.equal(rows[:, :9], latents)
    for channel, axis in ((9, 1), (10, 2), (11, 3)):
        one_line = rows[1, channel].movedim(axis - 1, 0)[:, 0, 0]
        torch.testing.assert_close(one_line, torch.linspace(-1, 1, latents.shape[axis + 1]))
        assert torch.equal(rows[0, channel], rows[1, channel])
    assert with_positions(latents.bfloat16()).dtype == torch.bfloat16


def test_guidance_is_a_call_for_the_prompt_then_one_without_it(pipe):
    calls, frames = record_calls(pipe, prompt=PROMPTS, num_inference_steps=3)
    assert frames.shape == (2, 16, 64, 64, 3)
    assert len(calls) == 6
    with torch.no_grad():
        cond = embed_prompts(pipe.tokenizer, pipe.text_encoder, PROMPTS)
    for first, second in zip(calls[::2], calls[1::2], strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
        torch.testing.assert_close(first[2], cond)
        assert second[2].abs().max() == 0


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_without_guidance_the_prompt_alone_is_called(pipe, guidance_scale):
    calls, _ = record_calls(pipe, num_inference_steps=3, guidance_scale=guidance_scale)
    assert len(calls) == 3
    assert calls[0][2].abs().max() > 0


def test_guidance_goes_from_negative_to_prompt(pipe):
    def predict(prompt, **options):  # one step from the same noise: latents are linear in the velocity
        return run(pipe, prompt, num_inference_steps=1, output_type="latent", **options)

    cond, negative = (predict(text, guidance_scale=1.0) for text in ("red circle", "blue cross"))
    guided = predict("red circle", negative_prompt="blue cross", guidance_scale=3.0)
    assert not torch.equal(cond, negative)
    torch.testing.assert_close(guided, negative + 3 * (cond - negative), atol=1e-4, rtol=1e-4)


def test_same_generator_same_clip_alone_or_in_a_batch(pipe):
    alone = np.concatenate([run(pipe, text, generator=noise(seed)) for seed, text in enumerate(PROMPTS)])
    assert np.array_equal(alone[:1], run(pipe))
    assert not np.array_equal(alone[0], alone[1])
    batch = run(pipe, PROMPTS, generator=[noise(0), noise(1)])
    np.testing.assert_allclose(batch, alone, atol=1e-5)


def test_save_and_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    # dtype also casts the rotary tables, which diffusers builds in float64
    loaded = ToyFlowPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(run(pipe), run(loaded), atol=1e-5)  # loaded tensors are aligned otherwise


def test_bad_latents_are_named(pipe):
    with pytest.raises(ValueError, match=r"latents has shape \(1, 2\); allowed: \(1, 9, 16, 16, 16\)"):
        run(pipe, latents=torch.zeros(1, 2))


def test_untrained_transformer_predicts_zero():
    rows = with_positions(torch.randn(1, 9, 16, 16, 16))
    out = build_flow_transformer(num_layers=1)(rows, torch.tensor([500.0]), torch.zeros(1, 8, 64)).sample
    assert out.shape == (1, 9, 16, 16, 16)
    assert out.abs().max() == 0


def test_training_lowers_the_loss_and_leaves_the_text_encoder_alone(tmp_path):
    encoder = build_text_encoder().eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    task = FlowDenoiserTask(encoder, batch_size=2, num_layers=1, compiled=False)
    start = float(task.loss(noise(3)).detach())
    trainer = Trainer(task, Settings(1.0, tmp_path, dtype=torch.float32))
    for _ in range(8):
        trainer._update(progress=0.0)
    assert float(task.loss(noise(3)).detach()) < start
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
