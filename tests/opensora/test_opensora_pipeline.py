"""Open-Sora's pipeline on tiny random parts: what the transformer is given, guidance, conditions, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from accelerate import cpu_offload

import keystep
from keystep.models import t5
from keystep.models.opensora import frames, references
from keystep.models.opensora.conditions import Condition
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from tests.opensora.tiny import tiny_pipeline
from tests.parity.opensora import Recording, find_stdit3, load_stdit3

RECORDED = Path(__file__).parents[1] / "data/opensora12/rflow/r3_imagecond_edit.safetensors"
SIZE = {"height": 48, "width": 70, "num_frames": 20}  # 6 latent frames of 6 x 8
SHAPE = (4, 6, 6, 8)
IMAGE = np.linspace(0, 1, 60 * 90 * 3, dtype=np.float32).reshape(60, 90, 3)
VIDEO = [PIL.Image.fromarray((IMAGE * (200 + i)).astype(np.uint8)) for i in range(40)]


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


def sample(pipe: Any, prompt: Any = "a red cat", **arguments: Any) -> torch.Tensor:
    """Latents of a short generation."""
    defaults = {"num_inference_steps": 3, "output_type": "latent", **SIZE}
    defaults |= {} if "generator" in arguments else {"generator": torch.Generator().manual_seed(0)}
    return pipe(prompt, **{**defaults, **arguments}).frames


class Calls:
    """The keyword arguments of every transformer call."""

    def __init__(self, pipe: Any) -> None:
        self.arguments: list[dict[str, Any]] = []
        self.hook = pipe.transformer.register_forward_pre_hook(self.record, with_kwargs=True)

    def record(self, _module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        self.arguments.append(named)


@pytest.fixture
def calls(pipe: Any) -> Iterator[Calls]:
    made = Calls(pipe)
    yield made
    made.hook.remove()


def assert_close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for the order of sums, which the batch size decides."""
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)


def test_it_samples_as_recorded(monkeypatch):
    recording = Recording.read(RECORDED)
    pipe: Any = tiny_pipeline()
    pipe.register_modules(transformer=load_stdit3(*find_stdit3(RECORDED.parent)))
    noise, mask, noises = recording.tensors["in.z"], recording.frame_mask, recording.noises
    assert mask is not None and noises is not None
    # the recorded latents are smaller than those of the size that the model was told
    monkeypatch.setattr(pipe.vae, "get_latent_size", lambda size: tuple(noise.shape[2:]))
    given = [[Condition(0, 0, t, t, 1, r) for t, r in enumerate(row) if r < 1] for row in mask.tolist()]
    monkeypatch.setattr(references, "place", lambda *_: given)
    monkeypatch.setattr(references, "encode", lambda *_: [[row] for row in noise])
    calls = Calls(pipe)
    monkeypatch.setattr(pipe, "_draw", lambda *_: noises[len(calls.arguments)])
    height, width = (int(recording.inputs[name][0]) for name in ("height", "width"))
    result = pipe(
        prompt_embeds=recording.inputs["encoder_hidden_states"],
        prompt_attention_mask=recording.inputs["encoder_attention_mask"],
        latents=noise,
        height=height,
        width=width,
        num_frames=recording.num_frames,
        fps=float(recording.inputs["fps"][0]),
        num_inference_steps=len(recording.timesteps),
        guidance_scale=recording.scale,
        output_type="latent",
    ).frames
    given = [arguments["hidden_states"].chunk(2)[0] for arguments in calls.arguments]
    torch.testing.assert_close(torch.stack([*given, result]), recording.latents, rtol=0, atol=1e-4)


def test_every_argument_of_the_transformer_has_two_rows_for_each_video(pipe, calls):
    sample(pipe, ["a red cat", "a blue dog on a hill"])
    assert len(calls.arguments) == 3
    for arguments in calls.arguments:
        tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
        assert {name: len(value) for name, value in tensors.items()} == dict.fromkeys(tensors, 4)
        assert arguments["frame_mask"] is None  # nothing is given
        cond, uncond = arguments["hidden_states"].chunk(2)
        assert torch.equal(cond, uncond)
    first = calls.arguments[0]
    assert first["encoder_attention_mask"].sum(1).tolist() == [11, 14] * 2  # scores and the end count too
    learned = pipe.transformer.y_embedder.y_embedding
    assert first["encoder_hidden_states"].shape[1] == 14, "no column that no prompt uses"
    assert torch.equal(first["encoder_hidden_states"][2:], learned[:14].expand(2, -1, -1))
    assert first["fps"].tolist() == [24.0] * 4
    assert first["height"].tolist() == [48.0] * 4
    assert first["width"].tolist() == [70.0] * 4


def test_guidance_is_from_the_learned_text_to_the_prompt(pipe, monkeypatch):
    velocity = torch.tensor([2.0, 0.5])  # conditional, unconditional

    def answer(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        rows = velocity[: len(hidden_states)].reshape(-1, 1, 1, 1, 1)
        return (
            torch.cat([torch.ones_like(hidden_states) * rows, torch.full_like(hidden_states, 9.0)], dim=1),
        )

    monkeypatch.setattr(pipe.transformer, "forward", answer)
    noise = torch.randn(1, *SHAPE)
    # the whole way is one unit of time
    expected = {0.0: 2.0, 1.0: 2.0, 1.5: 0.5 + 1.5 * 1.5, 7.0: 0.5 + 7 * 1.5}
    for scale, total in expected.items():
        torch.testing.assert_close(sample(pipe, latents=noise, guidance_scale=scale), noise + total)


def test_without_guidance_there_is_one_row_for_each_video(pipe, calls):
    sample(pipe, ["a red cat"] * 2, guidance_scale=1.0)
    assert all(len(arguments["hidden_states"]) == 2 for arguments in calls.arguments)
    assert not pipe.do_classifier_free_guidance


def test_prompts_of_a_batch_do_not_touch_each_other(pipe):
    prompts, noise = ["a red cat", "a blue dog on a hill"], torch.randn(2, *SHAPE)
    together = sample(pipe, prompts, latents=noise)
    alone = [sample(pipe, one, latents=row[None]) for one, row in zip(prompts, noise, strict=True)]
    assert_close(together, torch.cat(alone))
    assert (together[0] - together[1]).abs().max() > 0.1


def test_videos_of_one_prompt_lie_next_to_each_other(pipe):
    noise = torch.randn(4, *SHAPE)
    twice = sample(pipe, ["a red cat", "a dog"], latents=noise, num_videos_per_prompt=2)
    single = sample(pipe, ["a red cat", "a red cat", "a dog", "a dog"], latents=noise)
    assert torch.equal(twice, single)


def test_the_generator_decides(pipe):
    assert torch.equal(sample(pipe), sample(pipe))
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    each = sample(pipe, ["a red cat"] * 2, generator=generators)
    assert_close(each[:1], sample(pipe))
    assert (each[0] - each[1]).abs().max() > 0.1


def test_embeddings_do_as_well_as_prompts(pipe):
    embeds, mask = pipe.encode_prompt(["a red cat"])
    assert embeds.shape == (1, 20, 16)
    same = sample(pipe, None, prompt_embeds=embeds, prompt_attention_mask=mask)
    assert torch.equal(same, sample(pipe))
    cut = int(mask.sum())
    assert_close(sample(pipe, None, prompt_embeds=embeds[:, :cut]), same)


def test_scores_and_clips_change_the_text(pipe, monkeypatch):
    seen, embed = [], t5.embed

    def record(tokenizer: Any, encoder: Any, texts: list[str], *rest: Any) -> Any:
        seen.extend(texts)
        return embed(tokenizer, encoder, ["a"], *rest)

    monkeypatch.setattr(t5, "embed", record)
    pipe.encode_prompt("A Red Cat", motion_score=5, camera_motion="pan right")
    sample(pipe, "|0| a cat |1| a dog", clip_index=1, aesthetic_score=None)
    assert seen == ["a red cat aesthetic score: 6.5. motion score: 5.0. camera motion: pan right.", "a dog"]


def test_long_prompts_warn(pipe):
    with pytest.warns(t5.PromptTruncatedWarning, match="allowed: 20; this part was cut: 'cat cat'"):
        sample(pipe, " ".join(["cat"] * 21), aesthetic_score=None)


@pytest.mark.parametrize(
    ("output_type", "shape"),
    [("np", (1, 20, 48, 64, 3)), ("pt", (1, 20, 3, 48, 64)), ("latent", (1, *SHAPE))],
)
def test_outputs(pipe, output_type, shape):
    made = sample(pipe, output_type=output_type)
    assert tuple(made.shape) == shape
    arguments = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0), **SIZE}
    (again,) = pipe("a red cat", **arguments, output_type=output_type, return_dict=False)
    assert (again == made).all()


def test_an_image_is_a_video_of_one_frame_at_its_own_rate(pipe, calls):
    videos = sample(pipe, num_frames=1, output_type="pil")
    assert [[image.size for image in video] for video in videos] == [[(64, 48)]]
    assert calls.arguments[0]["fps"].tolist() == [120.0] * 2


def test_sizes_can_be_named(pipe, calls):
    arguments = {"height": None, "width": None, "resolution": "144p", "aspect": "1:1"}
    latents = sample(pipe, **arguments, num_inference_steps=1, num_frames=17)
    assert tuple(latents.shape) == (1, 4, 5, 24, 24)
    assert calls.arguments[0]["width"].tolist() == [192.0] * 2
    assert pipe.size_arguments(resolution="144p", aspect="1:1", num_frames=17) == {
        "height": 192,
        "width": 192,
        "num_frames": 17,
    }


# ---------------------------------------------------------------- conditions


def encoded(pipe: Any, video: torch.Tensor) -> torch.Tensor:
    """Latents of a reference (T, 3, H, W)."""
    with torch.no_grad():
        posterior = pipe.vae.encode(frames.fill(video, 48, 70)[None]).latent_dist
    return posterior.mode()[0]


def test_an_image_is_kept_as_the_first_frame(pipe, calls):
    latents = sample(pipe, image=IMAGE)
    reference = encoded(pipe, frames.read_images(IMAGE, 1)[0])
    assert_close(latents[0, :, :1], reference)
    assert (latents[0, :, 1:] - sample(pipe)[0, :, 1:]).abs().max() > 1e-3  # the others see it
    for arguments in calls.arguments[:3]:
        assert arguments["frame_mask"].tolist() == [[False] + [True] * 5] * 2


def test_a_video_goes_on_from_its_last_frames(pipe):
    latents = sample(pipe, video=VIDEO)
    reference = encoded(pipe, frames.read_videos(VIDEO[-17:], 1)[0])
    assert reference.shape[1] == 5
    assert_close(latents[0, :, :5], reference)


def test_edited_frames_wait_for_their_noise_level(pipe, calls):
    latents = sample(pipe, image=IMAGE, edit_ratio=0.6, num_inference_steps=10)
    reference = encoded(pipe, frames.read_images(IMAGE, 1)[0])
    waiting = [not arguments["frame_mask"][0, 0] for arguments in calls.arguments]
    times = [arguments["timestep"][0].item() for arguments in calls.arguments]
    assert waiting == [time > 600 for time in times]
    assert any(waiting) and not all(waiting)
    for arguments, waits in zip(calls.arguments, waiting, strict=True):
        difference = (arguments["hidden_states"][0, :, :1] - reference).abs().max()
        assert (difference < 1e-5) == waits
    assert (latents[0, :, :1] - reference).abs().max() > 1e-2


def test_conditions_belong_to_their_prompts(pipe):
    images, noise = [IMAGE, 1 - IMAGE], torch.randn(4, *SHAPE)
    prompts = ["a red cat", "a dog"]
    together = sample(pipe, prompts, image=images, latents=noise, num_videos_per_prompt=2)
    for row, (prompt, image) in enumerate([(prompts[0], images[0])] * 2 + [(prompts[1], images[1])] * 2):
        alone = sample(pipe, prompt, image=image, latents=noise[row : row + 1])
        assert_close(together[row : row + 1], alone)


def test_strategies_of_experts(pipe):
    strategy = ["1,1,0,0,5", "0,1,0,0,2;1,0,0,-1"]
    latents = sample(pipe, ["a red cat"] * 2, image=IMAGE, video=VIDEO, mask_strategy=strategy, clip_index=1)
    video = encoded(pipe, frames.read_videos(VIDEO, 1)[0])
    image = encoded(pipe, frames.read_images(IMAGE, 1)[0])
    assert_close(latents[0, :, :5], video[:, :5])
    assert_close(latents[1, :, 5:], image)


def test_a_shared_reference_is_encoded_once(pipe, monkeypatch):
    count, encode = [], pipe.vae.encode
    monkeypatch.setattr(pipe.vae, "encode", lambda *a, **k: count.append(1) or encode(*a, **k))
    sample(pipe, ["a red cat", "a dog"], image=IMAGE)
    assert len(count) == 1


# ---------------------------------------------------------------- surroundings


def test_callbacks_replace_latents_and_interrupt(pipe, calls):
    noise, steps = torch.randn(1, *SHAPE), []

    def callback(owner: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append((step, timestep.item()))
        owner._interrupt = step == 1
        return {"latents": torch.zeros_like(tensors["latents"])}

    latents = sample(pipe, latents=noise, num_inference_steps=4, callback_on_step_end=callback)
    assert [step for step, _ in steps] == [0, 1]
    assert steps[0][1] == 1000
    assert len(calls.arguments) == 2 and not latents.any()


def test_half_precision_keeps_latents_in_float32(monkeypatch):
    pipe = tiny_pipeline().to(torch.bfloat16)
    calls, stepped, step = Calls(pipe), [], pipe.scheduler.step

    def record(velocity: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, **options: Any) -> Any:
        stepped.append(latents.dtype)
        return step(velocity, timestep, latents, **options)

    monkeypatch.setattr(pipe.scheduler, "step", record)
    latents = sample(pipe, width=854, num_inference_steps=2)
    sample(pipe, latents=latents.half(), width=854, num_inference_steps=2)
    assert {latents.dtype, *stepped} == {torch.float32}
    assert {arguments["hidden_states"].dtype for arguments in calls.arguments} == {torch.bfloat16}
    expected = RectifiedFlowScheduler()
    expected.set_timesteps(2, height=48, width=854, num_frames=20, dtype=torch.bfloat16)
    assert torch.equal(pipe.scheduler.timesteps, expected.timesteps)
    assert sample(pipe, image=IMAGE, output_type="np").dtype == np.float32


def test_the_learned_text_is_found_where_the_transformer_is_offloaded(pipe):
    offloaded = tiny_pipeline()
    cpu_offload(offloaded.transformer, torch.device("cpu"), offload_buffers=True)
    assert offloaded.transformer.y_embedder.y_embedding.is_meta
    assert torch.equal(sample(offloaded), sample(pipe))


def test_all_parts_take_part_in_offloading(pipe):
    modules = {name for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    assert set(pipe.model_cpu_offload_seq.split("->")) == modules
    offloaded = tiny_pipeline()
    offloaded.enable_model_cpu_offload(device="cpu")
    arguments = {"image": IMAGE, "output_type": "pt"}
    assert torch.equal(sample(offloaded, **arguments), sample(pipe, **arguments))


def test_caching_attaches_and_leaves_no_trace(pipe, calls):
    noise = torch.randn(1, *SHAPE)
    plain = sample(pipe, latents=noise, image=IMAGE, num_inference_steps=12)
    with keystep.accelerate(pipe, "adacache") as session:
        cached = sample(pipe, latents=noise, image=IMAGE, num_inference_steps=12)
    assert session.traces[0].rows and torch.isfinite(cached).all()
    assert torch.equal(sample(pipe, latents=noise, image=IMAGE, num_inference_steps=12), plain)
    assert_close(cached[0, :, :1], plain[0, :, :1])  # the image is kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None}, "prompt is None"),
        ({"prompt": []}, "prompt is an empty list"),
        ({"num_frames": 9}, "num_frames: given 9, .*nearest: 1"),
        ({"height": None}, r"height, width: given \(None, 70\)"),
        ({"resolution": "480p"}, "height, width: given 48, 70 together"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"guidance_scale": -1}, "guidance_scale is -1"),
        ({"fps": 0}, "fps: given 0"),
        ({"fps": "24"}, "fps: given '24'"),
        ({"num_frames": 17.5}, "num_frames: given 17.5, allowed: a whole number"),
        ({"num_frames": True}, "num_frames: given True"),
        ({"clip_index": 1.5}, "clip_index: given 1.5"),
        ({"resolution": 480, "height": None, "width": None}, "resolution: given 480, allowed: a text"),
        ({"aspect": 0.56, "height": None, "width": None}, "aspect: given 0.56, allowed: a text"),
        ({"aesthetic_score": "high"}, "aesthetic_score: given 'high', allowed: a number"),
        ({"motion_score": True}, "motion_score: given True"),
        ({"camera_motion": 3}, "camera_motion: given 3"),
        ({"image": IMAGE, "mask_strategy": [None]}, r"mask_strategy: given \[None\], allowed: a text"),
        ({"prompt": None, "prompt_embeds": [1.0]}, "prompt_embeds: given 'list', allowed: a tensor"),
        ({"clip_index": -1}, "clip_index: given -1"),
        ({"prompt": "|0| a |x| b"}, "prompt: given"),
        ({"output_type": "gif"}, "output_type is 'gif'"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt is 0"),
        ({"latents": torch.zeros(1, 4, 5, 6, 8)}, r"latents has shape .* allowed: \(1, 4, 6, 6, 8\)"),
        ({"generator": [torch.Generator()] * 2}, "generator has 2 entries"),
        ({"prompt_embeds": torch.zeros(1, 5, 16)}, "prompt: given 'a red cat', allowed: None"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 21, 16)}, r"prompt_embeds: given \(1, 21, 16\)"),
        ({"prompt_attention_mask": torch.ones(1, 5)}, "prompt_attention_mask: given"),
        ({"image": "cat.png"}, "image: given 'str'"),
        ({"image": IMAGE * 255}, "image: given 'values from 0 to 255'"),
        ({"image": [IMAGE] * 2}, "image: given '2 of them', allowed: one"),
        ({"video": VIDEO[:9]}, "video: given '9 frames', allowed: from 17 frames"),
        ({"video": IMAGE}, "video: given"),
        ({"image": IMAGE, "video": VIDEO}, "image, video: given 'both'"),
        ({"edit_ratio": 0.5}, "edit_ratio: given 0.5, allowed: with an image or a video"),
        ({"image": IMAGE, "edit_ratio": 1.0}, "edit_ratio: given 1.0"),
        ({"mask_strategy": "0"}, "mask_strategy: given '0', allowed: with an image or a video"),
        ({"image": IMAGE, "mask_strategy": "0", "edit_ratio": 0.1}, "edit_ratio: given 0.1, allowed: as the"),
        ({"image": IMAGE, "mask_strategy": "0,3"}, "reference: given 3"),
        ({"image": IMAGE, "mask_strategy": ["0"] * 3}, "mask_strategy: given '3 of them'"),
        ({"num_frames": 17, "video": VIDEO}, "video: given 'all 5 latent frames kept'"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_an_error_before_anything_heavy(pipe, monkeypatch, arguments, message):
    for part in (pipe.text_encoder, pipe.transformer, pipe.vae):
        monkeypatch.setattr(part, "forward", None)
    monkeypatch.setattr(pipe.vae, "encode", None)
    with pytest.raises(ValueError, match=message):
        sample(pipe, **arguments)
