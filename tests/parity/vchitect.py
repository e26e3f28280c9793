"""Vchitect-2.0, told by `transformer_config.json`: keys, forwards, text; `vchitect_trajectory` has the rest.

The reference takes one video at a time and has its frames in the place of rows; where keystep's tensors have
(1, F * tokens, D), recordings have (F, tokens, D), and what belongs to a video is repeated for its frames.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from keystep.models.vchitect.text import embed_tokens
from keystep.models.vchitect.transformer import VchitectTransformer3DModel

from . import vchitect_trajectory
from .folder import nearest, read_json
from .forward import compare_middle, evaluate
from .report import ABSOLUTE, Case, Result, largest_difference

Tensors = dict[str, torch.Tensor]
ENCODERS: dict[str, tuple[Any, Any]] = {
    "clip_l": (CLIPTextConfig, CLIPTextModelWithProjection),
    "clip_g": (CLIPTextConfig, CLIPTextModelWithProjection),
    "t5": (T5Config, T5EncoderModel),
}
KINDS = ("spatial", "cross", "temporal")  # order of the attentions in a block


def find(folder: Path, label: str) -> Iterator[Case]:
    """The cases of a folder with a Vchitect transformer in it or in its parent."""
    if not is_vchitect(folder):
        return
    for path in sorted(folder.glob("transformer_forward*.safetensors")):
        yield Case(label + path.stem, path, run_forward)
    for path in sorted(folder.glob("full_keys_transformer.json")):
        yield Case(label + path.stem, path, run_keys)
    for path in sorted(folder.glob("text.safetensors")):
        yield Case(label + path.stem, path, run_text)
    for path in sorted(folder.glob("trajectory_*.safetensors")):
        yield Case(label + path.stem, path, vchitect_trajectory.run)


def is_vchitect(folder: Path) -> bool:
    """Whether the nearest transformer config holds arguments of Vchitect's, pooled text and rotary factor."""
    arguments = set(inspect.signature(VchitectTransformer3DModel.__init__).parameters)
    for path in nearest(folder, "transformer_config.json"):
        config = {key for key in read_json(path) if not key.startswith("_")}
        return {"pooled_projection_dim", "rope_scaling_factor"} <= config <= arguments
    return False


# ------------------------------------------------------------------ forwards


def run_forward(name: str, path: Path) -> Iterator[Result]:
    """Every `case<i>` of a file: its output and intermediates, absolutely."""
    model, tensors = vchitect_trajectory.load_transformer(path.parent), load_file(path)
    for case in sorted({key.partition(".")[0] for key in tensors}):
        own = {k.removeprefix(f"{case}."): v for k, v in tensors.items() if k.startswith(f"{case}.")}
        yield from compare_forward(f"{name} {case}", model, own)


def compare_forward(name: str, model: torch.nn.Module, tensors: Tensors) -> Iterator[Result]:
    """`out`, and `mid.*` where they were recorded."""
    inputs = {key.removeprefix("in."): value for key, value in tensors.items() if key.startswith("in.")}
    golden = {our_name(key): value for key, value in tensors.items() if key.startswith("mid.")}
    attended: Tensors = {}
    with recorded_attention(attended, inputs["hidden_states"].shape[1]):
        output, middle = evaluate(model, inputs, list(golden))
    yield Result(f"{name} out", largest_difference(output.flatten(0, 1), tensors["out"]), ABSOLUTE)
    if golden:
        ours = {key: in_frames(value, golden.get(key)) for key, value in (middle | attended).items()}
        yield compare_middle(name, ours, golden)


def our_name(key: str) -> str:
    """The recorded blocks return (text, image), ours (image, text); what is in brackets is a remark."""
    name, bracket, rest = key.removeprefix("mid.").partition("(")
    if bracket and rest.startswith("ctx,hidden)."):
        return f"{name}.{1 - int(rest[-1])}"
    return name


def recorded_attention(attended: Tensors, num_frames: int) -> Any:
    """While it lasts, keeps what fused attention returns under `transformer_blocks.<i>.sdpa_<kind>`."""
    compute, kinds = F.scaled_dot_product_attention, KINDS if num_frames > 1 else KINDS[:2]

    def keep(*args: torch.Tensor) -> torch.Tensor:
        block, kind = divmod(len(attended), len(kinds))
        value = compute(*args)
        is_cross = kinds[kind] == "cross"  # the reference has all frames of a token, then the next token
        kept = value.unflatten(2, (num_frames, -1)).transpose(2, 3).flatten(2, 3) if is_cross else value
        attended[f"transformer_blocks.{block}.sdpa_{kinds[kind]}"] = kept
        return value

    return patch.object(F, "scaled_dot_product_attention", keep)


def in_frames(ours: torch.Tensor, golden: torch.Tensor | None) -> torch.Tensor:
    """Our tensor in the layout of the recorded one, if it has the same numbers."""
    if golden is None or ours.shape == golden.shape:
        return ours
    if ours.numel() == golden.numel():
        return ours.reshape(golden.shape)
    return ours.expand(golden.shape) if ours.shape[0] == 1 and ours.ndim == golden.ndim else ours


def run_keys(name: str, path: Path) -> Iterator[Result]:
    """Names and shapes of all tensors of the whole model."""
    content = read_json(path)
    with torch.device("meta"):
        model = VchitectTransformer3DModel(**content["config"])
    ours = {(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    golden = {(key, tuple(shape)) for key, shape in content["keys"].items()}
    yield Result(name, float(len(ours ^ golden)), note=f"{len(golden)} tensors")


# ------------------------------------------------------------------ text


def run_text(name: str, path: Path) -> Iterator[Result]:
    """Embeddings of recorded token ids, of the prompt and of the negative prompt."""
    tensors = load_file(path)
    encoders = [load_encoder(key, path.parent) for key in ENCODERS]
    for branch, prefix in (("cond", ""), ("uncond", "negative_")):
        embedding = embed_tokens(encoders, [tensors[f"ids.{key}.{branch}"] for key in ENCODERS])
        for field, ours in (("", embedding.tokens), ("pooled_", embedding.pooled)):
            golden = tensors[f"{prefix}{field}prompt_embeds"]
            yield Result(f"{name} {prefix}{field}prompt_embeds", largest_difference(ours, golden), ABSOLUTE)


def load_encoder(key: str, folder: Path) -> Any:
    """A tiny text encoder from its config and weights."""
    config_class, model_class = ENCODERS[key]
    (config,), (weights,) = (
        nearest(folder, f"text_config_{key}.json"),
        nearest(folder, f"text_weights_{key}.safetensors"),
    )
    model = model_class(config_class.from_dict(read_json(config)))
    state = load_file(weights)
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {name for name in missing if name.endswith("embed_tokens.weight")}  # T5's, also `shared`
    assert set(missing) == tied, f"{key}: missing {missing}"
    assert not unexpected, f"{key}: unexpected {unexpected}"
    return model.eval()
