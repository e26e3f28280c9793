"""Images and videos that a user gives, as tensors.

Shape suffixes: T frames, H/W pixels; 3 colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn import functional as F

from keystep.errors import require

Frame = PIL.Image.Image | np.ndarray | torch.Tensor
Images = Frame | Sequence[Frame]
Videos = Sequence[Frame] | Sequence[Sequence[Frame]] | np.ndarray | torch.Tensor
_MAX_BYTE = 255


def read_images(images: Images, num_prompts: int) -> list[torch.Tensor]:
    """Images as videos of one frame.

    Args:
        images: one for all prompts, or one for each: PIL images, arrays (H, W, 3) or tensors (3, H, W), of
            bytes or of floats in [0, 1].
        num_prompts: allowed length of the list.

    Returns:
        (1, 3, H, W) in [0, 1]: one, or one per prompt.

    Raises:
        ValueError: something that is no image, or another number of them.
    """
    many = list(images) if isinstance(images, list | tuple) else [images]
    check_number("image", many, num_prompts)
    return [_read_frame("image", image)[None] for image in many]


def read_videos(videos: Videos, num_prompts: int) -> list[torch.Tensor]:
    """Videos.

    Args:
        videos: one for all prompts, or a list of one for each: lists of frames as `read_images` takes them,
            arrays (T, H, W, 3) or tensors (T, 3, H, W).
        num_prompts: allowed length of the list.

    Returns:
        (T, 3, H, W) in [0, 1]: one, or one per prompt.

    Raises:
        ValueError: something that is no video, frames of different sizes, or another number of videos.
    """
    many: list[Any] = list(videos) if _are_several(videos) else [videos]
    check_number("video", many, num_prompts)
    read = []
    for video in many:
        require(
            _is_sequence(video) and len(video) > 0,
            "video",
            _describe(video),
            "a list of frames, or an array of them",
        )
        frames = [_read_frame("video", frame) for frame in video]
        shapes = {tuple(frame.shape) for frame in frames}
        require(len(shapes) == 1, "video", sorted(shapes), "frames of one size")
        read.append(torch.stack(frames))
    return read


def check_number(name: str, values: Sequence[object], num_prompts: int) -> None:
    """ValueError unless there is one value, or one for each prompt."""
    allowed = "one" if num_prompts == 1 else f"one, or {num_prompts}, one a prompt"
    require(len(values) in (1, num_prompts), name, f"{len(values)} of them", allowed)


def fill(video_T3HW: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize and crop around the centre, keeping the aspect, to fill `height` x `width`.

    Args:
        video_T3HW: in [0, 1].
        height: of the result.
        width: of the result.

    Returns:
        (3, T, height, width) in [-1, 1].
    """
    rows, columns = video_T3HW.shape[-2:]
    if (rows, columns) != (height, width):
        scale = max(height / rows, width / columns)
        size = max(round(rows * scale), height), max(round(columns * scale), width)
        video_T3HW = F.interpolate(video_T3HW, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        video_T3HW = video_T3HW[..., top : top + height, left : left + width]
    return video_T3HW.transpose(0, 1) * 2 - 1


def _read_frame(name: str, frame: Any) -> torch.Tensor:
    """(3, H, W) float32 in [0, 1]."""
    if isinstance(frame, PIL.Image.Image):
        frame = np.asarray(frame.convert("RGB"))
    is_array, pixels = isinstance(frame, np.ndarray), frame
    if is_array and frame.ndim == 3:
        pixels = torch.from_numpy(np.array(frame, order="C")).permute(2, 0, 1)
    allowed = "PIL images, arrays (H, W, 3) or tensors (3, H, W), of bytes or of floats in [0, 1]"
    is_image = isinstance(pixels, torch.Tensor) and pixels.ndim == 3 and len(pixels) == 3
    require(is_image, name, _describe(frame), allowed)
    pixels = pixels.float() / _MAX_BYTE if pixels.dtype == torch.uint8 else pixels.float()
    low, high = pixels.min().item(), pixels.max().item()
    require(low >= 0 and high <= 1, name, f"values from {low:g} to {high:g}", allowed)
    return pixels


def _are_several(videos: Any) -> bool:
    if isinstance(videos, np.ndarray | torch.Tensor):
        return videos.ndim == 5
    return (
        _is_sequence(videos) and len(videos) > 0 and _is_sequence(videos[0]) and _ndim(videos[0]) in (None, 4)
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list | tuple) or (_ndim(value) or 0) > 1


def _ndim(value: Any) -> int | None:
    return value.ndim if isinstance(value, np.ndarray | torch.Tensor) else None


def _describe(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if _ndim(value) is not None else ""
    return f"{type(value).__name__}{shape}"
