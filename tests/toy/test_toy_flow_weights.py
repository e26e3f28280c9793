"""The second toy model as it ships: it loads by name, follows prompts, and can be accelerated."""

import numpy as np
import pytest
import torch

import keystep
from keystep.models.registry import find_spec
from keystep.models.toy import ToyFlowPipeline, development_prompts, held_out_prompts, load_toy
from keystep.models.toy.detector import FIELDS
from keystep.models.toy.loading import FLOW_WEIGHTS, load_toy_flow
from keystep.models.toy.train.evaluate import evaluate

MAX_BYTES = 10 * 2**20


@pytest.fixture(scope="module")
def flow():
    pipe = keystep.load("toy-flow")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe, **options):
    prompts = development_prompts(1)
    return pipe(prompts, generator=torch.Generator().manual_seed(0), **options).frames


def test_weights_are_small_and_safe():
    files = [path for path in FLOW_WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_loads_by_name_with_its_own_spec(flow):
    assert type(flow) is ToyFlowPipeline
    assert {param.dtype for param in flow.transformer.parameters()} == {torch.float32}
    spec = find_spec(flow.transformer, flow)
    assert (spec.name, spec.guidance) == ("toy-flow", "separate:cond,uncond")


def test_text_encoder_and_decoder_are_those_of_the_first_model(flow):
    toy = load_toy()
    for part in ("text_encoder", "vae"):
        mine, other = getattr(flow, part).state_dict(), getattr(toy, part).state_dict()
        assert mine.keys() == other.keys()
        assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_missing_weights_are_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("keystep.models.toy.loading.FLOW_WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="train_toy.py"):
        load_toy_flow()


def test_generates_in_bfloat16():
    pipe = load_toy_flow(dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    frames = run(pipe, num_inference_steps=2)
    assert pipe.transformer.dtype == torch.bfloat16
    assert frames.dtype == np.float32
    assert np.isfinite(frames).all()


@pytest.mark.parametrize("method", ["adacache", "fastercache"])
def test_skipped_work_costs_little_quality(flow, method):
    plain = run(flow, num_inference_steps=20)
    with keystep.accelerate(flow, method) as session:
        fast = run(flow, num_inference_steps=20)
    assert len(session.trace.key_steps) < 20
    psnr = -10 * np.log10(np.square(plain - fast).mean())
    assert 20 < psnr < 90


def test_follows_prompts(flow):
    shares = evaluate(flow, development_prompts(4), num_inference_steps=12)
    assert shares["colour"] == 1 and shares["background"] == 1, shares


@pytest.mark.slow
def test_follows_held_out_prompts(flow):
    shares = evaluate(flow, held_out_prompts(16), num_inference_steps=20)
    assert all(shares[field] >= 0.8 for field in FIELDS), shares
