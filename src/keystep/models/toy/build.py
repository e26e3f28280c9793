"""Untrained components of the toy pipelines, at the sizes that ship.

Who calls it: training, and tests that need the pipeline but no trained weights.
"""

from typing import Any

import torch
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import nn

from keystep.models.toy.latents import GRID_SIZE, NUM_CHANNELS
from keystep.models.toy.positions import NUM_POSITION_CHANNELS
from keystep.models.toy.scenes import NUM_FRAMES
from keystep.models.toy.text import TEXT_WIDTH

PATCH_SIZE = 4
# Of the sampling schedule: maps of many cells stay legible up to high noise, and the motion is decided there.
SHIFT = 7.5
_NUM_HEADS, _HEAD_WIDTH = 6, 32
_FLOW_EXPANSION = 3  # hidden width of Wan's MLPs, in units of the width
_GATES = (2, 5)  # rows of an adaLN table: shift, scale, gate of attention; shift, scale, gate of the MLP


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """The sampler both models were tuned with."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def build_transformer(num_layers: int = 4) -> LatteTransformer3DModel:
    """A Latte transformer whose blocks start as the identity.

    Args:
        num_layers: spatial blocks; there are as many temporal ones.
    """
    transformer = LatteTransformer3DModel(
        num_attention_heads=_NUM_HEADS,
        attention_head_dim=_HEAD_WIDTH,
        in_channels=NUM_CHANNELS,
        out_channels=NUM_CHANNELS,
        num_layers=num_layers,
        cross_attention_dim=_NUM_HEADS * _HEAD_WIDTH,
        caption_channels=TEXT_WIDTH,
        sample_size=GRID_SIZE,
        patch_size=PATCH_SIZE,
        video_length=NUM_FRAMES,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
    )
    blocks: list[Any] = [*transformer.transformer_blocks, *transformer.temporal_transformer_blocks]
    outputs = [layer for block in blocks for layer in (*_attention_outputs(block), block.ff.net[2])]
    _start_as_identity(transformer, blocks, [*outputs, transformer.adaln_single.linear])
    return transformer


def build_flow_transformer(num_layers: int = 6) -> WanTransformer3DModel:
    """A Wan transformer of the same width whose blocks start as the identity.

    Args:
        num_layers: blocks; each attends to all tokens of the clip, then to the words.
    """
    width = _NUM_HEADS * _HEAD_WIDTH
    transformer = WanTransformer3DModel(
        patch_size=(1, PATCH_SIZE, PATCH_SIZE),
        num_attention_heads=_NUM_HEADS,
        attention_head_dim=_HEAD_WIDTH,
        in_channels=NUM_CHANNELS + NUM_POSITION_CHANNELS,
        out_channels=NUM_CHANNELS,
        text_dim=TEXT_WIDTH,
        ffn_dim=_FLOW_EXPANSION * width,
        num_layers=num_layers,
        rope_max_seq_len=NUM_FRAMES,
    )
    blocks: list[Any] = list(transformer.blocks)
    outputs = [layer for block in blocks for layer in (*_attention_outputs(block), block.ffn.net[2])]
    _start_as_identity(transformer, blocks, [*outputs, transformer.condition_embedder.time_proj])
    transformer.rope.float()  # built in float64, which slows every product with it
    return transformer


def _attention_outputs(block: Any) -> list[nn.Linear]:
    return [attention.to_out[0] for attention in (block.attn1, block.attn2) if attention is not None]


@torch.no_grad()
def _start_as_identity(transformer: Any, blocks: list[Any], outputs: list[nn.Linear]) -> None:
    # diffusers leaves the adaLN tables and the branch outputs random, which trains far slower.
    for block in blocks:
        block.scale_shift_table.zero_()
        block.scale_shift_table[..., list(_GATES), :] = 1.0
    for layer in (*outputs, transformer.proj_out):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    transformer.scale_shift_table.zero_()
