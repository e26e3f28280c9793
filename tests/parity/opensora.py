"""Open-Sora's transformer for recorded cases, and the inputs they record under the reference's names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from keystep.models.checkpoint import load_weights, read_file
from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.transformer import STDiT3

from .folder import read_json

Tensors = dict[str, torch.Tensor]
NAMES = {
    "x": "hidden_states",
    "timestep": "timestep",
    "y": "encoder_hidden_states",
    "mask": "encoder_attention_mask",
    "x_mask": "frame_mask",
    "fps": "fps",
    "height": "height",
    "width": "width",
}  # the reference's -> STDiT3.forward's


def load_stdit3(config: Path, weights: Path) -> STDiT3:
    """The transformer in float32, every key of the weights used."""
    model = STDiT3(**transformer_arguments(read_json(config)))
    return load_weights(model, read_file(weights), weights).eval()


def inputs_of(path: Path) -> Tensors:
    """Arguments of `STDiT3.forward` that a file holds as `in.*`; the text without its extra axis."""
    given = {
        key.removeprefix("in."): value for key, value in load_file(path).items() if key.startswith("in.")
    }
    inputs = {ours: given[theirs] for theirs, ours in NAMES.items() if theirs in given}
    inputs["encoder_hidden_states"] = inputs["encoder_hidden_states"].squeeze(1)
    return inputs
