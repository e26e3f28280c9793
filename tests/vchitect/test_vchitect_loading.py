"""Checkpoints: the released layout, what was saved, and what does not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from keystep.models.vchitect.pipeline import VchitectPipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vchitect") / "saved"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture
def released(saved, tmp_path) -> Path:
    """As released: parts in subfolders, and nothing that names our classes."""
    folder = tmp_path / "released"
    shutil.copytree(saved, folder)
    (folder / "model_index.json").unlink()
    config = folder / "transformer" / "config.json"
    fields = {"_class_name": "VchitectXLTransformerModel", "tp_size": 1, "out_channels": None}
    content = json.loads(config.read_text()) | fields
    config.write_text(json.dumps(content))
    return folder


def sample(pipe: VchitectPipeline, small: dict[str, Any]) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    frames = pipe("a dog runs", generator=torch.Generator().manual_seed(0), **small).frames
    assert isinstance(frames, torch.Tensor)
    return frames


def change_weights(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_both_layouts_give_the_same_videos(pipe, saved, released, small) -> None:
    small["output_type"] = "pt"
    expected = sample(pipe, small)
    assert json.loads((saved / "model_index.json").read_text())["_class_name"] == "VchitectPipeline"
    for folder in (saved, str(released)):
        loaded = VchitectPipeline.from_pretrained(folder)
        torch.testing.assert_close(sample(loaded, small), expected, rtol=0, atol=1e-5)
        assert not any(module.training for module in loaded.transformer.modules())
        assert loaded.scheduler.config["shift"] == 3.0


@pytest.mark.parametrize("word", ["dtype", "torch_dtype"])
def test_dtype_and_parts_that_are_given(pipe, released, word: str) -> None:
    shutil.rmtree(released / "text_encoder_3")
    loaded = VchitectPipeline.from_pretrained(
        released, text_encoder_3=pipe.text_encoder_3, **{word: torch.bfloat16}
    )
    assert loaded.text_encoder_3 is pipe.text_encoder_3
    assert {loaded.transformer.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {torch.bfloat16}
    assert loaded.transformer.pos_embed.pos_embed.dtype == torch.bfloat16


def test_transformer_keys_that_do_not_fit(released) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["proj_out.bios"] = tensors.pop("proj_out.bias")
        tensors["norm_out.linear.bias"] = torch.zeros(3)

    change_weights(released / "transformer" / WEIGHTS, change)
    with pytest.raises(ValueError, match=r"missing: proj_out\.bias; .*extra: proj_out\.bios; .*mis-shaped"):
        VchitectPipeline.from_pretrained(released)


@pytest.mark.parametrize(
    ("part", "file", "key"),
    [
        ("text_encoder_2", "model.safetensors", "text_model.final_layer_norm.weight"),
        ("text_encoder_3", "model.safetensors", "encoder.final_layer_norm.weight"),
        ("vae", WEIGHTS, "decoder.conv_in.bias"),
    ],
)
def test_no_part_gets_random_weights_for_missing_ones(released, part: str, file: str, key: str) -> None:
    change_weights(released / part / file, lambda tensors: tensors.pop(key))
    with pytest.raises(ValueError, match=f"(?s){part}.*{key}"):
        VchitectPipeline.from_pretrained(released)


def test_missing_folders_and_unknown_parts(pipe, released) -> None:
    shutil.rmtree(released / "scheduler")
    shutil.rmtree(released / "tokenizer_2")
    with pytest.raises(ValueError, match="subfolders scheduler, tokenizer_2 too"):
        VchitectPipeline.from_pretrained(released)
    with pytest.raises(
        ValueError, match="unknown argument of from_pretrained 'text_encoder_4'; did you mean text_encoder"
    ):
        VchitectPipeline.from_pretrained(released, text_encoder_4=pipe.text_encoder)


def test_parts_may_be_missing_or_come_from_elsewhere(pipe, saved, tmp_path, small) -> None:
    bare = VchitectPipeline(**pipe.components | {"vae": None, "text_encoder_2": None})
    bare.save_pretrained(tmp_path)
    again = VchitectPipeline.from_pretrained(tmp_path)
    assert again.vae is None
    assert again.text_encoder_2 is None
    whole = VchitectPipeline.from_pretrained(
        tmp_path, vae=str(saved / "vae"), text_encoder_2=saved / "text_encoder_2"
    )
    torch.testing.assert_close(sample(whole, small), sample(pipe, small), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="scheduler: given None, allowed: an object, a folder or a hub id"):
        VchitectPipeline.from_pretrained(tmp_path, scheduler=None)


def test_a_config_that_is_not_there_or_not_known(released) -> None:
    config = released / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_experts": 3}))
    with pytest.raises(ValueError, match="transformer: unknown config field 'num_experts'"):
        VchitectPipeline.from_pretrained(released)
    config.unlink()
    with pytest.raises(ValueError, match="transformer: .*allowed: a folder with config.json and weights"):
        VchitectPipeline.from_pretrained(released)
