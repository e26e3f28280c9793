"""Loading Open-Sora: saved pipelines come back equal, the released layout is found, others are named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file

from keystep.models import t5
from keystep.models.opensora import loading
from keystep.models.opensora.pipeline import OpenSoraPipeline
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from tests.opensora.tiny import tiny_pipeline, tiny_text_encoder, tiny_vae

RELEASED = {
    "model_type": "STDiT3",
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "caption_channels": 16,
    "model_max_length": 20,
    "in_channels": 4,
    "qk_norm": True,
    "pred_sigma": True,
    "enable_flash_attn": True,
    "drop_path": 0.0,
}


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def home(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The released repositories, tiny, in one folder; without the autoencoder, which has one size only."""
    home = tmp_path_factory.mktemp("released")
    write_transformer(home / "OpenSora-STDiT-v3", pipe.transformer.state_dict())
    for part in (pipe.text_encoder, pipe.tokenizer):
        part.save_pretrained(home / "t5-v1_1-xxl")
    return home


def write_transformer(folder: Path, state: dict[str, torch.Tensor], **config: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(RELEASED | config))
    save_file({key: value.contiguous() for key, value in state.items()}, folder / "model.safetensors")


def sample(pipe: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "a red cat",
        height=48,
        width=64,
        num_frames=17,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames


def test_a_saved_pipeline_comes_back_equal(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = OpenSoraPipeline.from_pretrained(tmp_path)
    assert isinstance(again.scheduler, RectifiedFlowScheduler)
    assert torch.equal(sample(again), sample(pipe))
    half = OpenSoraPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16, vae=tiny_vae())
    assert {half.transformer.dtype, half.text_encoder.dtype} == {torch.bfloat16}
    assert half.vae.dtype == torch.float32
    half.save_pretrained(tmp_path / "half")
    again = OpenSoraPipeline.from_pretrained(tmp_path / "half")
    assert {again.transformer.dtype, again.vae.dtype, again.text_encoder.dtype} == {torch.float32}
    with pytest.raises(ValueError, match="dtype: given 'half', allowed: a torch.dtype"):
        OpenSoraPipeline.from_pretrained(tmp_path, dtype="half")


def test_parts_of_a_saved_pipeline_come_from_elsewhere(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "one")
    for part in ("vae", "text_encoder", "tokenizer", "transformer", "scheduler"):
        (tmp_path / "one" / part).rename(tmp_path / part)
        loaded = OpenSoraPipeline.from_pretrained(tmp_path / "one", **{part: str(tmp_path / part)})
        (tmp_path / part).rename(tmp_path / "one" / part)
        assert type(loaded.components[part]) is type(pipe.components[part])
    assert torch.equal(sample(loaded), sample(pipe))
    with pytest.raises(ValueError, match="vae: given None, allowed: an object, a folder or a hub id"):
        OpenSoraPipeline.from_pretrained(tmp_path / "one", vae=None)


def test_without_a_text_encoder(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    for _ in range(2):
        bare = OpenSoraPipeline.from_pretrained(tmp_path, text_encoder=None, tokenizer=None)
        with pytest.raises(ValueError, match="prompt: given 'a red cat', allowed: prompt_embeds instead"):
            sample(bare)
        bare.save_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_keys_of_a_saved_pipeline_must_fit(pipe, tmp_path, part):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / part / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    key = next(name for name in state if name.endswith("bias"))
    state["bogus"] = state.pop(key)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{part}: .*1 missing: {key}; 1 extra: bogus"):
        OpenSoraPipeline.from_pretrained(tmp_path)


def test_a_broken_index_and_an_unknown_sampler(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": "Sampler"}))
    with pytest.raises(ValueError, match=r"scheduler: config._class_name: given 'Sampler', allowed: Rect"):
        OpenSoraPipeline.from_pretrained(tmp_path)
    (tmp_path / "model_index.json").write_text("[1]")
    with pytest.raises(ValueError, match="model_index.json describes no pipeline"):
        OpenSoraPipeline.from_pretrained(tmp_path)


def test_the_released_layout_gives_the_same_pipeline(pipe, home):
    for source in (home, home / "OpenSora-STDiT-v3"):
        loaded = OpenSoraPipeline.from_pretrained(
            source, vae=pipe.vae, text_encoder=home / "t5-v1_1-xxl", tokenizer=str(home / "t5-v1_1-xxl")
        )
        assert torch.equal(sample(loaded), sample(pipe))
        assert not any(part.training for part in (loaded.transformer, loaded.text_encoder))


def test_parts_lie_beside_each_other(pipe, home, monkeypatch):
    sources = []
    monkeypatch.setitem(
        loading.LOADERS, "vae", lambda source, dtype: sources.append((source, dtype)) or pipe.vae
    )
    loaded = OpenSoraPipeline.from_pretrained(home, dtype=torch.bfloat16)
    assert {loaded.transformer.dtype, loaded.text_encoder.dtype} == {torch.bfloat16}
    OpenSoraPipeline.from_pretrained(home, vae="mine/vae")
    (home / "OpenSora-VAE-v1.2").mkdir()
    OpenSoraPipeline.from_pretrained(home)
    assert sources == [
        (loading.VAE, torch.bfloat16),
        ("mine/vae", torch.float32),
        (home / "OpenSora-VAE-v1.2", torch.float32),
    ]


def test_weights_go_in_without_a_copy(home):
    folder = home / "OpenSora-STDiT-v3"
    state = load_file(folder / "model.safetensors")
    held: list[dict[str, torch.Tensor]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "read_weights", lambda _: held.append(state) or state)
        transformer = loading.load_transformer(folder, torch.float32)
    for name, value in transformer.state_dict().items():
        assert value.data_ptr() == state[name].data_ptr()


def test_keys_must_fit(pipe, tmp_path):
    state = dict(pipe.transformer.state_dict())
    value = state.pop("spatial_blocks.0.attn.qkv.weight")
    state["spatial_blocks.0.attn.kqv.weight"] = value
    state["t_block.1.bias"] = torch.zeros(3)
    write_transformer(tmp_path / "t", state)
    with pytest.raises(ValueError) as caught:
        OpenSoraPipeline.from_pretrained(tmp_path / "t")
    for part in (
        "1 missing: spatial_blocks.0.attn.qkv.weight",
        "1 extra: spatial_blocks.0.attn.kqv.weight",
        "1 mis-shaped: t_block.1.bias (3,) instead of (192,)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("config", "key", "message"),
    [
        (
            {"model_type": "STDiT"},
            "x",
            r"given Open-Sora 1\.0 \(STDiT\), allowed: the transformer of Open-Sora 1.2",
        ),
        ({"model_type": "STDiT2"}, "x", r"given Open-Sora 1\.1 \(STDiT2\)"),
        ({"in_channels": 16}, "x", r"given Open-Sora 1\.3 \(latents with 16 channels\)"),
        ({"model_type": "MMDiTModel"}, "x", r"given Open-Sora 2\.0 \(MMDiT\)"),
        ({}, "blocks.0.attn_temp.qkv.weight", r"given Open-Sora 1\.0 \(STDiT\)"),
        ({}, "double_blocks.0.img_attn.qkv.weight", r"given Open-Sora 2\.0 \(MMDiT\)"),
        ({"model_type": "UNet"}, "x", "config.model_type: given 'UNet'"),
        ({"num_layers": 3}, "x", "unknown config field 'num_layers'"),
    ],
)
def test_other_versions_are_named(tmp_path, config, key, message):
    write_transformer(tmp_path / "t", {key: torch.zeros(1)}, **config)
    with pytest.raises(ValueError, match=message):
        OpenSoraPipeline.from_pretrained(tmp_path / "t")


def test_keys_of_1_1_are_told_from_those_of_1_0(tmp_path):
    keys = ("blocks.0.attn_temp.qkv.weight", "t_block_temp.1.weight")
    write_transformer(tmp_path / "t", {key: torch.zeros(1) for key in keys})
    with pytest.raises(ValueError, match=r"given Open-Sora 1\.1 \(STDiT2\)"):
        OpenSoraPipeline.from_pretrained(tmp_path / "t")


def test_parts_that_do_not_fit_each_other(pipe, home, tmp_path):
    shutil.copytree(home / "OpenSora-STDiT-v3", tmp_path, dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"tokenizer: given .*nowhere"):
        OpenSoraPipeline.from_pretrained(tmp_path, vae=pipe.vae, text_encoder=tmp_path / "nowhere")
    wider = tiny_text_encoder(24)
    with pytest.raises(ValueError, match=r"text_encoder.config.d_model: given 24, allowed: 16, the transf"):
        OpenSoraPipeline.from_pretrained(tmp_path, vae=pipe.vae, text_encoder=wider, tokenizer=pipe.tokenizer)


def test_a_text_encoder_without_weights_is_an_error(pipe, tmp_path):
    pipe.text_encoder.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("encoder.final_layer_norm.weight")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 missing: encoder.final_layer_norm.weight"):
        t5.LOADERS["text_encoder"](tmp_path, torch.float32)


def test_folders_without_a_model_and_unknown_arguments(tmp_path, home):
    with pytest.raises(ValueError, match="allowed: a folder with model_index.json"):
        OpenSoraPipeline.from_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"unknown argument of from_pretrained 'variant'.*known: dtype, scheduler"
    ):
        OpenSoraPipeline.from_pretrained(home, variant="fp16")


def test_t5_is_read_as_it_was_released(tmp_path):
    """Sharded torch files that hold the decoder too, and a sentencepiece model."""
    words = tmp_path / "words.txt"
    words.write_text("a red cat on a hill\nthe blue dog runs\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(words),
        model_prefix=str(tmp_path / "spiece"),
        vocab_size=20,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0})
    )
    encoder = tiny_text_encoder(16)
    encoder.config.save_pretrained(tmp_path)
    state = {**encoder.state_dict(), "decoder.final_layer_norm.weight": torch.ones(16)}
    names = {key: f"pytorch_model-0000{1 + index % 2}-of-00002.bin" for index, key in enumerate(state)}
    for name in set(names.values()):
        torch.save({key: state[key] for key in names if names[key] == name}, tmp_path / name)
    index = {"metadata": {}, "weight_map": names}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    loaded = t5.LOADERS["text_encoder"](tmp_path, torch.float32)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, state[name]), name
    ids = t5.LOADERS["tokenizer"](tmp_path, torch.float32)("a red cat").input_ids
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spiece.model"))
    assert ids == [*pieces.encode("a red cat"), 1]
