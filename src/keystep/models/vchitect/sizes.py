"""Sizes that Vchitect-2.0 was released for, in words."""

from __future__ import annotations

from keystep.errors import require

FRAMES_PER_SECOND = 8
HEIGHT, WIDTH, NUM_FRAMES = 432, 768, 40  # five seconds
MULTIPLE = 16  # of height and width: the VAE's 8 pixels per latent, 2 latents per token
SIZES = {"240p": (240, 432), "288p": (288, 480), "352p": (352, 624), "432p": (432, 768)}  # height, width
ASPECTS = ("16:9", "9:16")


def size_arguments(
    *,
    resolution: str | None = None,
    aspect: str | None = None,
    seconds: float | None = None,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, int]:
    """Height, width and number of frames of a call, without a model.

    Args:
        resolution: "240p", "288p", "352p" or "432p" (default), which the authors list; not with height and
            width.
        aspect: "16:9" (default) or "9:16", the same sizes upright; not with height and width.
        seconds: length at 8 frames per second; not with `num_frames`.
        num_frames: default 40.
        height: in pixels, a multiple of 16; with `width`.
        width: in pixels, a multiple of 16; with `height`.

    Raises:
        ValueError: names what was given and what is allowed.
    """
    frames = frames_of(seconds, num_frames)
    if height is None and width is None:
        height, width = size_of(resolution or "432p", aspect or "16:9")
        return {"height": height, "width": width, "num_frames": frames}
    given = resolution if resolution is not None else aspect
    require(given is None, "resolution, aspect", given, "nothing beside height and width")
    for name, value in (("height", height), ("width", width)):
        require_size(name, value)
    assert height is not None and width is not None, "checked"
    return {"height": height, "width": width, "num_frames": frames}


def require_size(name: str, value: int | None) -> None:
    """Raise ValueError unless `value` is a height or width that makes whole tokens."""
    is_valid = isinstance(value, int) and value > 0 and value % MULTIPLE == 0
    near = f", such as {max(1, round(value / MULTIPLE)) * MULTIPLE}" if isinstance(value, int) else ""
    require(is_valid, name, value, f"a multiple of {MULTIPLE}{near}; height and width go together")


def size_of(resolution: str, aspect: str) -> tuple[int, int]:
    """(height, width) of a resolution in words.

    Raises:
        ValueError: lists the words there are.
    """
    require(resolution in SIZES, "resolution", resolution, f"{', '.join(SIZES)}; or height and width")
    require(aspect in ASPECTS, "aspect", aspect, f"{', '.join(ASPECTS)}; or height and width")
    height, width = SIZES[resolution]
    return (height, width) if aspect == "16:9" else (width, height)


def frames_of(seconds: float | None, num_frames: int | None) -> int:
    """The number of frames, from seconds or as it is.

    Raises:
        ValueError: both are given, or there would be no frame.
    """
    require(
        seconds is None or num_frames is None,
        "seconds",
        seconds,
        "nothing beside num_frames; it is one of them",
    )
    if seconds is None:
        frames = NUM_FRAMES if num_frames is None else num_frames
        require(isinstance(frames, int) and frames >= 1, "num_frames", num_frames, "a whole number >= 1")
        return frames
    frames = round(seconds * FRAMES_PER_SECOND)
    require(frames >= 1, "seconds", seconds, f"{1 / FRAMES_PER_SECOND} (one frame) or more")
    return frames
