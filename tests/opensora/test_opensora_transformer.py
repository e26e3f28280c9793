"""STDiT3 keeps its laws: what may have no influence has none, layouts agree; released configs fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.transformer import FinalLayer, STDiT3
from keystep.models.t5 import drop_padding

SIZES = {"hidden_size": 48, "depth": 2, "num_heads": 3, "caption_channels": 20, "model_max_length": 7}
ROWS, FRAMES, TOKENS = 4, 3, 7
RELEASED = {
    "architectures": ["STDiT3"],
    "caption_channels": 4096,
    "class_dropout_prob": 0.1,
    "depth": 28,
    "drop_path": 0.0,
    "enable_flash_attn": True,
    "enable_layernorm_kernel": True,
    "enable_sequence_parallelism": False,
    "freeze_y_embedder": True,
    "hidden_size": 1152,
    "in_channels": 4,
    "input_size": [None, None, None],
    "input_sq_size": 512,
    "mlp_ratio": 4.0,
    "model_max_length": 300,
    "model_type": "STDiT3",
    "num_heads": 16,
    "only_train_temporal": False,
    "patch_size": [1, 2, 2],
    "pred_sigma": True,
    "qk_norm": True,
    "skip_y_embedder": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.2",
}


@pytest.fixture
def model() -> STDiT3:
    torch.manual_seed(0)
    return STDiT3(**SIZES).eval()


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(ROWS, 4, FRAMES, 6, 8, generator=generator),
        "timestep": torch.tensor([900.0, 500.0, 900.0, 500.0]),
        "encoder_hidden_states": torch.randn(ROWS, TOKENS, 20, generator=generator),
        "fps": torch.tensor([24.0]),
        "height": torch.tensor([48.0]),
        "width": torch.tensor([64.0]),
        "encoder_attention_mask": torch.tensor([[1] * 3 + [0] * 4, [1] * 5 + [0] * 2]),
    }


@torch.no_grad()
def evaluate(model: STDiT3, inputs: dict[str, torch.Tensor], **changes: Any) -> torch.Tensor:
    return model(**inputs | changes, return_dict=False)[0]


def test_the_output_has_twice_the_channels_in_float32(model, inputs) -> None:
    with torch.no_grad():
        sample = model(**inputs).sample
    assert sample.shape == (ROWS, 8, FRAMES, 6, 8)
    assert torch.equal(sample, evaluate(model, inputs))
    half = evaluate(STDiT3(**SIZES).to(torch.bfloat16), inputs)
    assert half.dtype == torch.float32


def test_bfloat16_stays_near_float32(model, inputs) -> None:
    exact = evaluate(model, inputs, timestep=torch.tensor([512.0]))
    half = evaluate(model.to(torch.bfloat16), inputs, timestep=torch.tensor([512.0]))
    assert 1e-4 < (half - exact).norm() / exact.norm() < 2e-2


def test_masked_tokens_have_no_influence_and_others_have(model, inputs) -> None:
    plain, text = evaluate(model, inputs), inputs["encoder_hidden_states"]
    masked, used = text.clone(), text.clone()
    masked[0, 3:] += 5
    used[0, 2] += 5
    assert torch.equal(evaluate(model, inputs, encoder_hidden_states=masked), plain)
    changed = (evaluate(model, inputs, encoder_hidden_states=used) - plain).abs().amax((1, 2, 3, 4))
    assert changed[0] > 1e-3
    assert not changed[1:].any()


def test_rows_are_independent_and_shared_rows_are_repeated(model, inputs) -> None:
    together = evaluate(model, inputs)
    mask = inputs["encoder_attention_mask"].repeat(2, 1)
    for row in range(ROWS):
        alone = {
            name: value[row : row + 1] if len(value) == ROWS else value for name, value in inputs.items()
        }
        single = evaluate(model, alone, encoder_attention_mask=mask[row : row + 1])
        torch.testing.assert_close(single, together[row : row + 1], atol=1e-5, rtol=1e-5)


def test_a_row_without_any_token_gets_zeros_from_the_text(model, inputs) -> None:
    mask = inputs["encoder_attention_mask"].clone()
    plain = evaluate(model, inputs)
    mask[0] = 0
    empty = evaluate(model, inputs, encoder_attention_mask=mask)
    assert empty.isfinite().all()
    assert torch.equal(empty[1::2], plain[1::2])
    nowhere = evaluate(model, inputs, encoder_attention_mask=torch.zeros(1, TOKENS))
    torch.testing.assert_close(nowhere[::2], empty[::2], atol=1e-5, rtol=1e-5)


def test_texts_of_one_length_need_no_mask() -> None:
    text = torch.arange(10.0).reshape(2, 5, 1)
    cut, mask = drop_padding(text, torch.tensor([[0, 1, 1, 0, 0]] * 2))
    assert mask is None
    assert torch.equal(cut, text[:, 1:3])
    cut, mask = drop_padding(text, torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]))
    assert mask is not None
    assert mask.tolist() == [[True, False], [True, True]]
    assert torch.equal(cut, text[:, :2])


def test_a_frame_mask_of_ones_is_none(model, inputs) -> None:
    ones = torch.ones(ROWS, FRAMES, dtype=torch.bool)
    assert torch.equal(evaluate(model, inputs, frame_mask=ones), evaluate(model, inputs))


def test_masked_frames_do_not_see_the_timestep_inside_the_blocks(model, inputs) -> None:
    seen: list[torch.Tensor] = []
    model.temporal_blocks[-1].register_forward_hook(lambda block, args, output: seen.append(output))
    none = torch.zeros(1, FRAMES, dtype=torch.bool)
    for mask in (none, ~none):
        for time in (900.0, 100.0):
            evaluate(model, inputs, frame_mask=mask, timestep=torch.tensor([time]))
    assert torch.equal(seen[0], seen[1])
    assert not torch.allclose(seen[2], seen[3], atol=1e-3)


def test_the_final_layer_modulates_masked_frames_twice() -> None:
    torch.manual_seed(0)
    layer, x = FinalLayer(8, 6), torch.randn(1, 4, 8)
    time, time_zero = torch.randn(2, 1, 8)
    mask = torch.tensor([[True, False]])
    once = layer(x, time, 2)
    masked = layer(x, time, 2, mask, time_zero)
    torch.testing.assert_close(masked[:, :2], once[:, :2])
    shift, scale = layer.scale_shift_table + time
    inner = layer.norm_final(x) * (1 + scale) + shift
    torch.testing.assert_close(masked[:, 2:], layer(inner, time_zero, 2)[:, 2:])


def test_odd_sizes_are_padded_with_zeros_and_cropped(model, inputs) -> None:
    odd = inputs["hidden_states"][..., :5, :7]
    padded = torch.nn.functional.pad(odd, (0, 1, 0, 1))
    cropped = evaluate(model, inputs, hidden_states=padded)[..., :5, :7]
    assert torch.equal(evaluate(model, inputs, hidden_states=odd), cropped)


@pytest.mark.parametrize("name", ["fps", "height", "width", "timestep"])
def test_every_number_matters(model, inputs, name: str) -> None:
    changed = evaluate(model, inputs, **{name: inputs[name] * 0.5})
    assert (changed - evaluate(model, inputs)).abs().max() > 1e-4


def test_blocks_compile_as_whole_graphs(model, inputs) -> None:
    frame_mask = torch.tensor([[False, True, True]])
    eager = evaluate(model, inputs, frame_mask=frame_mask)
    torch.compiler.reset()
    for block in (*model.spatial_blocks, *model.temporal_blocks):
        block.compile(fullgraph=True, backend="aot_eager")
    compiled = evaluate(model, inputs, frame_mask=frame_mask)
    torch.compiler.reset()
    torch.testing.assert_close(compiled, eager, atol=1e-5, rtol=1e-5)


def test_saved_and_loaded(model, inputs, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = STDiT3.from_pretrained(tmp_path)
    assert torch.equal(evaluate(loaded, inputs), evaluate(model, inputs))
    assert not loaded.rope.freqs.requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_states": torch.zeros(4, 3, 3, 6, 8)}, r"hidden_states: given \(4, 3, 3, 6, 8\)"),
        ({"hidden_states": torch.zeros(4, 4, 6, 8)}, r"allowed: \(B, 4, T, H, W\)"),
        ({"timestep": torch.zeros(3)}, r"timestep: given \(3,\), allowed: \(B\) where B is 4 or a divisor"),
        ({"timestep": torch.tensor(5.0)}, r"timestep: given \(\)"),
        ({"encoder_hidden_states": torch.zeros(4, 7, 21)}, r"allowed: \(B, any, 20\)"),
        ({"encoder_attention_mask": torch.ones(2, 6)}, r"encoder_attention_mask: .* allowed: \(B, 7\)"),
        ({"frame_mask": torch.ones(4, 4).bool()}, r"frame_mask: given \(4, 4\), allowed: \(B, 3\)"),
        ({"fps": torch.zeros(0)}, r"fps: given \(0,\)"),
        ({"height": torch.tensor(48.0)}, r"height: given \(\)"),
    ],
)
def test_a_wrong_shape_is_named(model, inputs, change: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(model, inputs, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"patch_size": (2, 2, 2)}, "patch_size"), ({"num_heads": 7}, "hidden_size: given 48, allowed: multi")],
)
def test_a_wrong_size_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        STDiT3(**SIZES | change)


def test_the_released_config_is_the_default() -> None:
    with torch.device("meta"):
        default = STDiT3()
    arguments = transformer_arguments(RELEASED) | {"patch_size": (1, 2, 2)}
    assert arguments == {name: default.config[name] for name in arguments}
    assert len(arguments) == 9
    assert sum(value.numel() for value in default.state_dict().values()) == 1_208_872_772


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "STDiT2"}, "config.model_type: given 'STDiT2', allowed: 'STDiT3'"),
        ({"qk_norm": False}, "config.qk_norm"),
        ({"num_head": 16}, "unknown config field 'num_head'; did you mean num_heads"),
    ],
)
def test_another_config_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer_arguments(RELEASED | change)
