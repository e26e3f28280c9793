"""Loading: the released layout, saved pipelines, keys that do not fit; sizes in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler
from safetensors.torch import load_file, save_file

import keystep
from keystep.models.opensora_plan.pipeline import OpenSoraPlanPipeline
from keystep.models.opensora_plan.sizes import size_arguments
from tests.opensora_plan.osp_tiny import tiny_pipeline, write_release

SIZE = "65x512x512"
WEIGHTS = Path(SIZE) / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def original() -> OpenSoraPlanPipeline:
    return tiny_pipeline()


@pytest.fixture
def release(original, tmp_path: Path) -> Path:
    return write_release(tmp_path / "release", original)


def run(pipe: OpenSoraPlanPipeline) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=4, output_type="pt", generator=generator).frames


def test_released_layout(original, release: Path) -> None:
    pipe = OpenSoraPlanPipeline.from_pretrained(release, text_encoder=str(release / "t5"))
    assert isinstance(pipe.scheduler, PNDMScheduler)
    assert not pipe.transformer.training
    assert {p.device.type for part in (pipe.transformer, pipe.vae) for p in part.parameters()} == {"cpu"}
    torch.testing.assert_close(run(pipe), run(original))


def test_saved_pipeline(original, tmp_path: Path) -> None:
    original.save_pretrained(tmp_path)
    pipe = OpenSoraPlanPipeline.from_pretrained(tmp_path)
    torch.testing.assert_close(run(pipe), run(original))
    assert pipe.vae is not None
    assert dict(pipe.vae.config)["encoder_resnet_blocks"] == original.vae.config["encoder_resnet_blocks"]
    named = keystep.load(str(tmp_path))
    assert isinstance(named, OpenSoraPlanPipeline)
    with pytest.raises(ValueError, match="size: given '65x512x512', allowed: None for a saved pipeline"):
        OpenSoraPlanPipeline.from_pretrained(tmp_path, size=SIZE)
    other = OpenSoraPlanPipeline.from_pretrained(tmp_path, scheduler=DDIMScheduler(), text_encoder=None)
    assert isinstance(other.scheduler, DDIMScheduler)
    assert other.text_encoder is None


def test_by_name(original, release: Path) -> None:
    pipe = keystep.load("opensora-plan-1.1", source=str(release), text_encoder=str(release / "t5"), size=SIZE)
    torch.testing.assert_close(run(pipe), run(original))


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_half_precision(release: Path, name: str) -> None:
    options = {name: torch.bfloat16}
    pipe = OpenSoraPlanPipeline.from_pretrained(release, text_encoder=str(release / "t5"), **options)
    for part in (pipe.transformer, pipe.vae, pipe.text_encoder):
        assert {p.dtype for p in part.parameters()} == {torch.bfloat16}
    assert torch.isfinite(run(pipe)).all()


def test_parts_from_elsewhere(original, release: Path) -> None:
    (release / "vae").rename(release / "other")
    options = {"text_encoder": original.text_encoder, "vae": str(release / "other")}
    with pytest.raises(
        ValueError, match="tokenizer: given 'auto', allowed: an object, a folder or a hub id, as the text enc"
    ):
        OpenSoraPlanPipeline.from_pretrained(release, **options)
    pipe = OpenSoraPlanPipeline.from_pretrained(release, tokenizer=original.tokenizer, **options)
    assert pipe.text_encoder is original.text_encoder
    torch.testing.assert_close(run(pipe), run(original))
    assert OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None, vae=pipe.vae).tokenizer is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "513x512x512"}, "size: given '513x512x512', allowed: '65x512x512' or '221x512x512'"),
        (
            {"size": "221x512x512"},
            r"checkpoint: given .*'65x512x512'.* allowed: a folder with 221x512x512/config",
        ),
        (
            {"revision": "main"},
            "unknown argument of from_pretrained 'revision'.*known: dtype, scheduler, size, text_encoder",
        ),
    ],
)
def test_bad_arguments(release: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None, **options)


def test_keys_that_do_not_fit_are_listed(release: Path) -> None:
    state = load_file(release / WEIGHTS)
    state["proj_out.wieght"] = state.pop("proj_out.weight")
    state["proj_out.bias"] = torch.zeros(3)
    save_file(state, release / WEIGHTS)
    with pytest.raises(ValueError, match="does not fit OpenSoraPlanTransformer3DModel") as error:
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None)
    text = str(error.value)
    assert "1 missing: proj_out.weight" in text
    assert "1 extra: proj_out.wieght" in text
    assert "1 mis-shaped: proj_out.bias (3,) instead of (32,)" in text


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_keys_of_a_saved_pipeline_must_fit(original, tmp_path: Path, part: str) -> None:
    original.save_pretrained(tmp_path)
    path = tmp_path / part / WEIGHTS.name
    state = load_file(path)
    key = next(name for name in state if name.endswith("bias"))
    state["bogus"] = state.pop(key)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{part}: .*1 missing: {key}; 1 extra: bogus"):
        OpenSoraPlanPipeline.from_pretrained(tmp_path)


def test_wrapped_weights(original, release: Path) -> None:
    path = release / "vae" / "checkpoint.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"ema_state_dict": {}, "state_dict": wrapped}, path)
    pipe = OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None)
    for key, value in pipe.vae.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_t5_must_be_there_whole(release: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer: given '.*nowhere', which cannot be loaded"):
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=release / "nowhere")
    path = release / "t5" / "model.safetensors"
    state = load_file(path)
    state["encoder.bogus"] = state.pop("encoder.final_layer_norm.weight")
    state["decoder.final_layer_norm.weight"] = torch.zeros(1)  # T5 may be there with its other half
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="text_encoder: .*1 missing: encoder.final.*1 extra: encoder.bogus$"):
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=release / "t5")


def test_another_sampler_is_saved_with_the_pipeline(original, tmp_path: Path) -> None:
    pipe = OpenSoraPlanPipeline(**original.components | {"scheduler": DDIMScheduler(num_train_timesteps=77)})
    pipe.save_pretrained(tmp_path)
    scheduler = OpenSoraPlanPipeline.from_pretrained(tmp_path).scheduler
    assert isinstance(scheduler, DDIMScheduler)
    assert scheduler.config["num_train_timesteps"] == 77


def test_an_older_autoencoder_is_refused_by_its_config(release: Path) -> None:
    path = release / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"decoder_attention": "AttnBlock3D"}))
    with pytest.raises(ValueError, match="config.decoder_attention: given 'AttnBlock3D'"):
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None)
    path.unlink()
    with pytest.raises(ValueError, match="checkpoint: given .*vae', allowed: a folder with config.json"):
        OpenSoraPlanPipeline.from_pretrained(release, text_encoder=None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, {}),
        ({"resolution": "512p"}, {"height": 512, "width": 512}),
        ({"aspect": "1:1", "seconds": 2.7}, {"height": 512, "width": 512, "num_frames": 65}),
        ({"seconds": 9.2}, {"num_frames": 221}),
        ({"num_frames": 221, "height": 480, "width": 640}, {"num_frames": 221, "height": 480, "width": 640}),
    ],
)
def test_sizes_in_words(words: dict, expected: dict) -> None:
    assert size_arguments(**words) == expected
    assert OpenSoraPlanPipeline.size_arguments(**words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"resolution": "720p"}, "resolution: given '720p', allowed: '512p', or height and width"),
        ({"aspect": "16:9"}, "aspect: given '16:9', allowed: '1:1', or height and width"),
        ({"seconds": 4}, r"seconds: given 4, allowed: 2.7 \(65 frames\) or 9.2 \(221 frames\)"),
        ({"num_frames": 64}, "num_frames: given 64, allowed: 65 or 221"),
        ({"seconds": 2.7, "num_frames": 65}, "seconds: given 2.7, allowed: nothing beside num_frames"),
        ({"height": 512}, "height, width: given .* allowed: both or none"),
        ({"height": 500, "width": 512}, "height: given 500, allowed: a multiple of 16; nearest: 496"),
        ({"resolution": "512p", "height": 512, "width": 512}, "size: given .* words or pixels, not both"),
    ],
)
def test_sizes_there_are_not(words: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        size_arguments(**words)
