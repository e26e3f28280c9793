import numpy as np
import pytest
import torch

from keystep.models.toy import held_out_prompts, load_toy
from keystep.models.toy.detector import FIELDS
from keystep.models.toy.loading import WEIGHTS
from keystep.models.toy.train.evaluate import evaluate

MAX_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def toy():
    pipe = load_toy()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_weights_are_small_and_safe():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_loads_in_float32_by_default(toy):
    for module in (toy.transformer, toy.text_encoder, toy.vae):
        assert {param.dtype for param in module.parameters()} == {torch.float32}


def test_generates_in_bfloat16():
    pipe = load_toy(dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe("a red circle", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).frames
    assert pipe.transformer.dtype == torch.bfloat16
    assert frames.dtype == np.float32
    assert np.isfinite(frames).all()


def test_missing_weights_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("keystep.models.toy.loading.WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="train_toy.py"):
        load_toy()


@pytest.mark.slow
def test_shipped_model_follows_held_out_prompts(toy):
    shares = evaluate(toy, held_out_prompts(16), num_inference_steps=20)
    assert all(shares[field] >= 0.8 for field in FIELDS), shares
