"""Model specs: where a model's sites are and how its pipelines lay out guidance. Data, a dozen lines each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from math import prod
from typing import Any, Literal

import torch
from torch import nn

from keystep.errors import require
from keystep.what import Attention, Part

PACKED = "BNC"  # latents as rows of tokens, N running over T, H, W
SIZES = ("num_frames", "height", "width")  # arguments that tell the sizes of a packed latent
COORDINATES = "video_coords"  # (rows, 3, N): where its tokens lie, for pipelines that do not give the sizes


@dataclass(frozen=True)
class ModelSpec:
    """What the engine has to know about a transformer class. Module names are relative to the transformer.

    Attributes:
        name: key of the model in preset tables.
        transformer: class name of the denoiser.
        blocks: names of the block lists.
        order: `"interleaved"`: blocks of one index run one after the other; `"sequential"`: list after list.
        streams: arguments of a block that it returns, in order; a skipped block passes them through.
        exit: the module called right after the last block, with the hidden state as its first argument and
            in the layout of the first block's; empty = there is none, the last block's output will do.
        attention: kind -> pattern of the attention modules, `{}` standing for the block index.
        residual: kind -> pattern of the module called right after the attention residual of such blocks was
            added, with the hidden state first; blocks of the first kind are measured unless a probe says
            otherwise.
        mlp: kind -> pattern of the feed-forward modules.
        norms: name of an attention or feed-forward module in its block -> name there of the norm whose output
            it alone reads, which does not run when the module is skipped; empty = they all run.
        rows: arguments of the transformer whose dimension 0 carries the guidance branches, branch-major.
        guidance: layout of guidance in this model's pipelines, see `Guidance.parse`.
        guided: what tells whether there is guidance: `"flag"`, the pipeline's `do_classifier_free_guidance`
            or `guidance_scale`; `"calls"`, the calls of the first evaluation, for separate layouts: there the
            scale may be something the model is given (HunyuanVideo), and guidance an object.
        condition: the argument that carries the text.
        latent: axes of the latent, the first of `rows`, and of the output, e.g. `"BCTHW"`; `"BNC"` = packed
            into tokens, the arguments `num_frames`, `height` and `width` or `video_coords` telling the sizes.
        outputs: the `rows` that hold the latents of which the output has a tensor each, where it is more than
            the video's.
        further_calls: how many calls an evaluation may have beyond those of guidance (with perturbed blocks,
            without another modality), each a branch of its own.
        time: the module that embeds the timestep; empty = it cannot be measured.
        hints: block lists besides the stack whose outputs are added to the hidden state behind some of its
            blocks -> how many tensors a block of theirs returns; inside a skipped span they do not run.
        pipeline: class name of the only pipeline this spec is for; empty = any.
    """

    name: str
    transformer: str
    blocks: tuple[str, ...]
    streams: tuple[str, ...]
    exit: str
    attention: dict[str, str]
    residual: dict[str, str]
    rows: tuple[str, ...]
    guidance: str
    guided: Literal["flag", "calls"] = "flag"
    condition: str = "encoder_hidden_states"
    latent: str = "BCTHW"
    pipeline: str = ""
    order: Literal["interleaved", "sequential"] = "interleaved"
    outputs: tuple[str, ...] = ()
    further_calls: int = 0
    time: str = ""
    hints: dict[str, int] = field(default_factory=dict)
    mlp: dict[str, str] = field(default_factory=dict)
    norms: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        is_known = sorted(self.latent) == sorted("BCTHW") or self.latent == PACKED
        require(is_known, "ModelSpec.latent", self.latent, f"an order of B, C, T, H, W, or {PACKED}")

    def parts(self, site: Part) -> dict[str, str]:
        """Kind -> pattern of the modules that a site on parts of blocks may cover."""
        return self.attention if isinstance(site, Attention) else self.mlp

    def blocks_in_order(self, module: nn.Module) -> list[str]:
        """Names of the blocks in the order in which they run."""
        lists = [
            [f"{name}.{index}" for index, _ in enumerate(module.get_submodule(name).children())]
            for name in self.blocks
        ]
        if self.order == "sequential":
            return [path for paths in lists for path in paths]
        return [path for pair in zip_longest(*lists) for path in pair if path is not None]

    def positions(self, in_order: Sequence[str]) -> list[int | None]:
        """For each block its place in the stack; None where no span may begin or end in front of it.

        Interleaved lists differ in the layout inside a pair of blocks, so a pair is one place.
        """
        if self.order == "sequential":
            return list(range(len(in_order)))
        first = f"{self.blocks[0]}."
        return [int(path[len(first) :]) if path.startswith(first) else None for path in in_order]

    def count_frames(self, module: nn.Module, arguments: Mapping[str, Any]) -> int:
        """Latent frames after temporal patching, from the arguments of a call and the module's config."""
        if self.latent == PACKED:
            return _size(arguments, 0)
        config = getattr(module, "config", {})
        patch = config.get("patch_size_t")
        if patch is None:
            spatial = config.get("patch_size", 1)
            patch = spatial[0] if isinstance(spatial, (tuple, list)) else 1
        return -(-arguments[self.rows[0]].shape[self.latent.index("T")] // patch)

    def output_sites(self, model: str, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Name of each tensor of a model's output -> the argument with its latent."""
        names = [name for name in self.outputs or self.rows[:1] if arguments.get(name) is not None]
        return {f"{model}:{index}" if index else model: name for index, name in enumerate(names)}

    def channels(self, index: int) -> int:
        """Axis of the channels of a tensor of the output."""
        return -1 if index else self.latent.index("C")

    def channel_axis(self, latent: torch.Tensor) -> int | None:
        """Axis of the channels in the latent a sampler works on; None where that is not the model's."""
        if self.latent == PACKED:
            return 2 if latent.ndim == 3 else None
        return self.latent.index("C") if latent.ndim == len(self.latent) else None

    def to_frames(self, output: torch.Tensor, arguments: Mapping[str, Any], index: int = 0) -> torch.Tensor:
        """A tensor of the output (some rows), unpacked, with latent height and width as the last two axes.

        Others than the video's, (B, N, C), become (B, C, 1, N): their frequencies are those along N.
        """
        if index:
            return output.movedim(-1, 1).unsqueeze(2)
        if self.latent == PACKED:
            sizes = _sizes(arguments)
            if prod(sizes) != output.shape[1]:
                raise ValueError(
                    f"{', '.join(SIZES)}: given {sizes} for {output.shape[1]} tokens: the latent holds other "
                    "tokens too, so its frames cannot be told; use another method, without CFG-Cache"
                )
            output = output.unflatten(1, sizes)
        axes, framed = self._orders()
        return output.permute([axes.index(axis) for axis in framed])

    def latent_frames(self, module: nn.Module, arguments: Mapping[str, Any]) -> torch.Tensor:
        """The latent of a call as (rows, C, T, H, W), without channels behind those the model makes."""
        frames = self.to_frames(arguments[self.rows[0]], arguments)
        frames = frames.permute([self._orders()[1].index(axis) for axis in "BCTHW"])
        config = getattr(module, "config", {})
        made = config.get("out_channels") or config.get("out_visual_dim") or frames.shape[1]
        return frames[:, :made]

    def from_frames(self, frames: torch.Tensor, index: int = 0) -> torch.Tensor:
        """The way back from `to_frames`."""
        if index:
            return frames.squeeze(2).movedim(1, -1)
        axes, framed = self._orders()
        output = frames.permute([framed.index(axis) for axis in axes])
        return output.flatten(1, 3) if self.latent == PACKED else output

    def _orders(self) -> tuple[str, str]:
        """Axes of the unpacked output as it comes, and with height and width last."""
        axes = "BTHWC" if self.latent == PACKED else self.latent
        return axes, "".join(axis for axis in axes if axis not in "HW") + "HW"


def unknown_model(name: str) -> ModelSpec:
    """What is known of a model without a spec: enough for methods that touch nothing inside of it."""
    return ModelSpec(
        name, name, (), (), "", {}, {}, (), "separate:cond,uncond", guided="calls", latent=PACKED
    )


def _sizes(arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """Frames, height and width of a packed latent."""
    return tuple(_size(arguments, axis) for axis in range(len(SIZES)))


def _size(arguments: Mapping[str, Any], axis: int) -> int:
    """One of them. Where coordinates stand in for sizes, counting them waits for the device."""
    if any(arguments.get(name) is None for name in SIZES):
        return len(arguments[COORDINATES][0, axis].unique())
    return arguments[SIZES[axis]]
