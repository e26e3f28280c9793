"""Sizes of Open-Sora-Plan 1.1: pixels and frames of videos, rows and frames of latents.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0: two checkpoints of 65 and 221 frames, 512 x 512, 24 per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keystep.errors import require

SPATIAL_FACTOR = 8  # pixels of a latent, each way
TEMPORAL_FACTOR = 4  # frames of a latent frame, but for the first
FPS = 24
RESOLUTION = 512
PIXELS_OF_TOKEN = 16  # latents are taken in patches of 2 x 2
FRAMES_OF_SIZE = {"65x512x512": 65, "221x512x512": 221}  # released checkpoints


def latent_frames(num_frames: int) -> int:
    """Latent frames of a video of 4 n + 1 frames: n + 1."""
    return (num_frames - 1) // TEMPORAL_FACTOR + 1


def video_frames(num_latent_frames: int) -> int:
    """Frames of a video of n + 1 latent frames: 4 n + 1."""
    return TEMPORAL_FACTOR * (num_latent_frames - 1) + 1


def check_video(shape: Sequence[int]) -> None:
    """ValueError unless a video (B, 3, T, H, W) has a size that latents express; names the nearest."""
    require(len(shape) == 5 and shape[1] == 3, "video", tuple(shape), "(B, 3, T, H, W)")
    num_frames, height, width = shape[2:]
    near = video_frames(max(round((num_frames - 1) / TEMPORAL_FACTOR), 0) + 1)
    require(num_frames == near, "frames", num_frames, f"4 n + 1; nearest: {near}")
    check_pixels(height, width, SPATIAL_FACTOR)


def check_pixels(height: int, width: int, multiple: int) -> None:
    """ValueError unless height and width are multiples; names the nearest."""
    for field, pixels in (("height", height), ("width", width)):
        is_whole = isinstance(pixels, int) and not isinstance(pixels, bool)
        require(is_whole, field, pixels, f"a multiple of {multiple}")
        near = max(round(pixels / multiple), 1) * multiple
        require(pixels == near, field, pixels, f"a multiple of {multiple}; nearest: {near}")


def size_arguments(
    *,
    resolution: str | None = None,
    aspect: str | None = None,
    seconds: float | None = None,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, int]:
    """A size said in words, as arguments of the pipeline's call; what is not said keeps the call's default.

    Args:
        resolution: "512p", the resolution of the released checkpoints.
        aspect: "1:1", their aspect.
        seconds: 2.7 or 9.2: 65 or 221 frames, 24 per second.
        num_frames: 65 or 221, as many as the checkpoint makes.
        height: pixels, a multiple of 16; together with width, instead of resolution and aspect.
        width: pixels, a multiple of 16.

    Raises:
        ValueError: another word or number (says which there are), or a size said twice.
    """
    is_in_words = resolution is not None or aspect is not None
    is_in_pixels = height is not None or width is not None
    given = {"resolution": resolution, "aspect": aspect, "height": height, "width": width}
    require(not (is_in_words and is_in_pixels), "size", given, "words or pixels, not both")
    arguments: dict[str, int] = {}
    if is_in_words:
        names = (f"{RESOLUTION}p", f"{RESOLUTION}x{RESOLUTION}", str(RESOLUTION))
        require(resolution in (None, *names), "resolution", resolution, f"{names[0]!r}, or height and width")
        require(aspect in (None, "1:1"), "aspect", aspect, "'1:1', or height and width")
        arguments |= {"height": RESOLUTION, "width": RESOLUTION}
    if height is not None or width is not None:
        require(height is not None and width is not None, "height, width", (height, width), "both or none")
        assert height is not None and width is not None, "checked"
        check_pixels(height, width, PIXELS_OF_TOKEN)
        arguments |= {"height": height, "width": width}
    require(seconds is None or num_frames is None, "seconds", seconds, "nothing beside num_frames")
    if seconds is not None:
        num_frames = _frames_of(seconds)
    if num_frames is not None:
        released = list(FRAMES_OF_SIZE.values())
        require(num_frames in released, "num_frames", num_frames, " or ".join(map(str, released)))
        arguments["num_frames"] = num_frames
    return arguments


def load_arguments(call: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, str]:
    """Which released checkpoint makes a video, as an argument of the pipeline's `from_pretrained`.

    Args:
        call: arguments of the pipeline's call; without `num_frames` nothing is chosen.
        given: arguments of `from_pretrained` that the user chose.

    Raises:
        ValueError: the user chose the checkpoint of another length.
    """
    frames = call.get("num_frames")
    size = next((size for size, made in FRAMES_OF_SIZE.items() if made == frames), None)
    if size is None:
        return {}
    require(given.get("size", size) == size, "size", given.get("size"), f"{size!r} for {frames} frames")
    return {"size": size}


def _frames_of(seconds: float) -> int:
    durations = {round(frames / FPS, 1): frames for frames in FRAMES_OF_SIZE.values()}
    allowed = " or ".join(f"{duration} ({frames} frames)" for duration, frames in durations.items())
    rounded = round(seconds, 1)
    require(rounded in durations, "seconds", seconds, allowed)
    return durations[rounded]
