"""The transformer: released key names, batches, layouts, bad input. Numbers: `tests/parity/vchitect.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from keystep.models.vchitect.attention import rotary_table
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

GOLDENS = Path(__file__).parents[1] / "data" / "vchitect2"


@pytest.fixture(scope="module")
def model(pipe) -> VchitectTransformer3DModel:
    return pipe.transformer


def inputs(batch: int = 1, num_frames: int = 3, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, num_frames, 4, 4, 6, generator=generator),
        "timestep": torch.rand(batch, generator=generator) * 1000,
        "encoder_hidden_states": torch.randn(batch, 5, 24, generator=generator),
        "pooled_projections": torch.randn(batch, 10, generator=generator),
    }


def test_keys_are_those_of_the_released_checkpoint() -> None:
    released = json.loads((GOLDENS / "full_keys_transformer.json").read_text())
    with torch.device("meta"):
        model = VchitectTransformer3DModel(**released["config"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == released["keys"]
    assert all(value.is_meta for value in (*model.parameters(), *model.buffers()))


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(model) -> None:
    both = inputs(batch=2)
    output = model(**both).sample
    for row in range(2):
        alone = model(**{key: value[row : row + 1] for key, value in both.items()}).sample
        torch.testing.assert_close(output[row : row + 1], alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(output[0], output[1], atol=0.1)


@torch.no_grad()
def test_one_row_is_shared_by_all_samples(model) -> None:
    one, latents = inputs(batch=1), inputs(batch=2, seed=1)["hidden_states"]
    repeated = {key: torch.cat([value, value]) for key, value in one.items()}
    shared = model(**one | {"hidden_states": latents}).sample
    assert torch.equal(shared, model(**repeated | {"hidden_states": latents}).sample)


@torch.no_grad()
def test_streams_keep_one_layout_between_blocks(model) -> None:
    shapes = []
    handles = [
        block.register_forward_hook(
            lambda _, args, output: shapes.append([x.shape for x in (*args[:2], *output)])
        )
        for block in model.transformer_blocks
    ]
    model(**inputs(batch=2))
    for handle in handles:
        handle.remove()
    assert shapes == [[(2, 3 * 6, 16), (2, 3 * 5, 16)] * 2] * 2


@torch.no_grad()
def test_frames_see_each_other_and_a_single_one_needs_no_attention_across(model) -> None:
    changed = inputs()
    changed["hidden_states"][:, 2] += 1.0
    difference = (model(**changed).sample - model(**inputs()).sample).abs().amax(dim=(0, 2, 3, 4))
    assert (difference > 1e-4).all()
    calls = []
    temporal = model.transformer_blocks[0].attn.to_q_temp
    handle = temporal.register_forward_hook(lambda *_: calls.append(1))
    model(**inputs(num_frames=1))
    assert not calls
    model(**inputs(num_frames=2))
    assert calls
    handle.remove()


def test_rotary_angles() -> None:
    cos, sin = rotary_table(5, 4, 2.0, torch.device("cpu"))
    angles = torch.arange(5)[:, None] / 2.0 * torch.tensor([1.0, 1.0, 1e-3, 1e-3])
    torch.testing.assert_close(torch.atan2(sin, cos), angles)


@torch.no_grad()
def test_half_precision_and_plain_tuples(model) -> None:
    half = VchitectTransformer3DModel.from_config(model.config).to(torch.bfloat16).eval()
    half.load_state_dict(model.state_dict())
    arguments = {key: value.to(torch.bfloat16) for key, value in inputs().items()}
    arguments["timestep"] = inputs()["timestep"]
    (output,) = half(**arguments, return_dict=False)
    assert output.dtype == torch.bfloat16
    expected = model(**inputs()).sample
    assert (output.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(
    "shape", [(3, 4, 4, 6), (1, 3, 5, 4, 6), (1, 3, 4, 3, 6), (1, 3, 4, 4, 14), (1, 3, 4, 0, 6)]
)
def test_latents_that_make_no_tokens(model, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"hidden_states: given .* multiples of 2 up to 12"):
        model(**inputs() | {"hidden_states": torch.zeros(shape)})


def test_the_text_needs_the_width_of_the_model() -> None:
    with pytest.raises(ValueError, match="caption_projection_dim: given 8, allowed: .*= 16"):
        VchitectTransformer3DModel(
            attention_head_dim=8, num_attention_heads=2, caption_projection_dim=8, num_layers=1
        )
