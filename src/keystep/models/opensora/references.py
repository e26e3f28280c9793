"""Images and videos as conditions: which go where, and their latents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from keystep.errors import require
from keystep.models.opensora import conditions
from keystep.models.opensora.frames import Images, Videos, check_number, fill, read_images, read_videos
from keystep.models.opensora.vae import AutoencoderKLOpenSora

Value = TypeVar("Value")
FRAMES_OF_CHUNK = 17  # the autoencoder encodes them together, as `conditions.CHUNK` latent ones


@dataclass(frozen=True)
class References:
    """What a video is conditioned on.

    Attributes:
        videos: (T, 3, H, W) in [0, 1] each, an image has T = 1. Prompts that share one share the tensor.
        strategy: where their frames go, see `conditions`.
        field: the argument that said so, for messages.
    """

    videos: list[torch.Tensor]
    strategy: str
    field: str


def read(
    images: Images | None,
    videos: Videos | None,
    strategies: str | Sequence[str] | None,
    edit_ratio: float | None,
    num_prompts: int,
    clip: int,
) -> list[References]:
    """The references of every prompt: its image, then its video.

    Args:
        images: see `frames.read_images`.
        videos: see `frames.read_videos`. Without a strategy only its last chunk of frames is used.
        strategies: one for all prompts, or one for each; None = image or end of the video are the beginning.
        edit_ratio: of the conditions made where there are no strategies; None = 0.
        num_prompts: length of the result.
        clip: which clip of a long video this is.

    Raises:
        ValueError: not readable, or arguments that do not go together.
    """
    kinds = [] if images is None else [read_images(images, num_prompts)]
    if videos is not None:
        kinds.append(read_videos(videos, num_prompts))
    field = "mask_strategy"
    if strategies is None:
        field = "image" if videos is None else "video"
        both = "a mask_strategy that says where each goes, e.g. '0;0,1,0,5,5'"
        require(len(kinds) < 2, "image, video", "both", both)
        require(bool(kinds) or edit_ratio is None, "edit_ratio", edit_ratio, "with an image or a video only")
        if videos is not None:
            kinds = [[_last_chunk(video) for video in kinds[0]]]
        strategies = (
            _usual_strategy(clip, conditions.CHUNK if videos is not None else 1, edit_ratio) if kinds else ""
        )
    else:
        require(bool(kinds), "mask_strategy", strategies, "with an image or a video only")
        require(edit_ratio is None, "edit_ratio", edit_ratio, "as the sixth number of the mask_strategy")
    texts = [strategies] if isinstance(strategies, str) else list(strategies)
    is_text = all(isinstance(text, str) for text in texts)
    require(is_text, "mask_strategy", strategies, "a text, or a list of them, one a prompt")
    check_number("mask_strategy", texts, num_prompts)
    videos_of = (
        list(zip(*(_for_each(given, num_prompts) for given in kinds), strict=True)) or [()] * num_prompts
    )
    pairs = zip(videos_of, _for_each(texts, num_prompts), strict=True)
    return [References(list(given), strategy, field) for given, strategy in pairs]


def _usual_strategy(clip: int, length: int, edit_ratio: float | None) -> str:
    ratio = 0.0 if edit_ratio is None else edit_ratio
    conditions.check_edit_ratio(ratio)
    return str(conditions.Condition(clip=clip, length=length, edit_ratio=ratio))


def _last_chunk(video: torch.Tensor) -> torch.Tensor:
    allowed = f"from {FRAMES_OF_CHUNK} frames, which are encoded as one; or an image, or a mask_strategy"
    require(len(video) >= FRAMES_OF_CHUNK, "video", f"{len(video)} frames", allowed)
    return video[-FRAMES_OF_CHUNK:]


def _for_each(values: list[Value], num_prompts: int) -> list[Value]:
    return values * num_prompts if len(values) == 1 else values


def place(
    given: Sequence[References], vae: AutoencoderKLOpenSora, size: dict[str, int], clip: int
) -> list[list[conditions.Condition]]:
    """The conditions of every prompt, with the latent frames they really take.

    Args:
        given: from `read`.
        vae: says how many latent frames there are.
        size: height, width and num_frames of the video.
        clip: which clip of a long video this is.

    Raises:
        ValueError: a strategy names a reference or frames that are not there.
    """

    def count(num_frames: int) -> int:
        return vae.get_latent_size((num_frames, size["height"], size["width"]))[0]

    num_frames = count(size["num_frames"])
    return [
        conditions.place(
            entry.strategy, [count(len(v)) for v in entry.videos], num_frames, clip=clip, field=entry.field
        )
        for entry in given
    ]


def encode(
    given: Sequence[References], vae: AutoencoderKLOpenSora, size: dict[str, int], device: torch.device
) -> list[list[torch.Tensor]]:
    """Latents (C, T, H, W), float32, of every reference of every prompt; shared ones are encoded once.

    They are the posterior's mode. The reference code draws a sample, which only adds noise to what was given.
    """
    encoded: dict[int, torch.Tensor] = {}
    for video in (video for entry in given for video in entry.videos):
        if id(video) not in encoded:
            pixels = fill(video, size["height"], size["width"])[None].to(device, vae.dtype)
            posterior: Any = vae.encode(pixels, return_dict=False)[0]
            encoded[id(video)] = posterior.mode()[0].float()
    return [[encoded[id(video)] for video in entry.videos] for entry in given]
