"""Sizes that Open-Sora 1.2 was trained at: resolution x aspect ratio -> pixels, duration -> frames.

Source: Open-Sora v1.2.0, `opensora/datasets/aspect.py`. Aspect ratios are height:width, so "9:16" lies on its
long side. Heights and widths are what the model is told; the autoencoder rounds them down to multiples of 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from keystep.errors import require

RATIO_OF_NAME = {
    "3:8": "0.38", "9:21": "0.43", "12:25": "0.48", "1:2": "0.50", "9:17": "0.53", "27:50": "0.54",
    "9:16": "0.56", "5:8": "0.62", "2:3": "0.67", "3:4": "0.75", "1:1": "1.00", "4:3": "1.33",
    "3:2": "1.50", "16:9": "1.78", "17:9": "1.89", "2:1": "2.00", "50:27": "2.08",
}  # fmt: skip

# height x width for every ratio of RATIO_OF_NAME, in its order
_OF_VIDEOS = {
    "144p": "117x312 125x291 133x277 135x270 139x262 141x260 144x256 151x241 156x234 "
    "166x221 192x192 221x165 235x156 256x144 263x139 271x135 277x132",
    "240p": "196x522 210x490 222x462 226x452 232x438 236x436 240x426 252x404 262x393 "
    "276x368 320x320 370x278 392x262 426x240 440x232 452x226 462x222",
    "360p": "294x784 314x732 332x692 340x680 350x662 352x652 360x640 380x608 392x588 "
    "416x554 480x480 554x416 588x392 640x360 660x350 678x340 692x332",
    "480p": "392x1046 420x980 444x925 452x904 466x880 470x870 480x854 506x810 522x784 "
    "554x738 640x640 740x555 784x522 854x480 880x466 906x454 924x444",
    "720p": "588x1568 628x1466 666x1388 678x1356 698x1318 706x1306 720x1280 758x1212 784x1176 "
    "832x1110 960x960 1108x832 1176x784 1280x720 1320x698 1358x680 1386x666",
    "1080p": "882x2352 942x2198 998x2080 1018x2036 1048x1980 1058x1958 1080x1920 1138x1820 1176x1764 "
    "1248x1664 1440x1440 1662x1246 1764x1176 1920x1080 1980x1048 2036x1018 2078x998",
}
# the ratios of the image sizes, at 256; 512 and 1024 are twice and four times as large
_OF_IMAGES = (
    "0.25=128x512 0.26=128x496 0.27=128x480 0.28=128x464 0.32=144x448 0.33=144x432 0.35=144x416 "
    "0.4=160x400 0.42=160x384 0.48=176x368 0.5=176x352 0.52=176x336 0.57=192x336 0.6=192x320 "
    "0.68=208x304 0.72=208x288 0.78=224x288 0.82=224x272 0.88=240x272 0.94=240x256 1.0=256x256 "
    "1.07=256x240 1.13=272x240 1.21=272x224 1.29=288x224 1.38=288x208 1.46=304x208 1.67=320x192 "
    "1.75=336x192 2.0=352x176 2.09=368x176 2.4=384x160 2.5=400x160 2.89=416x144 3.0=432x144 "
    "3.11=448x144 3.62=464x128 3.75=480x128 3.88=496x128 4.0=512x128"
)

FRAMES_OF_DURATION = {f"{2 * n}s": 51 * n for n in (1, 2, 4, 8, 16)} | {
    f"{n}x": 51 * n for n in (1, 2, 4, 8, 16)
}
MIN_VIDEO_FRAMES = 17  # the timesteps depend on whole chunks of 17 frames, and a video needs one
MIN_PIXELS = 16  # one patch
IMAGE_FPS = 120  # what the model is told for a single frame

Size = tuple[int, int]


def _size(text: str, scale: int = 1) -> Size:
    height, width = text.split("x")
    return int(height) * scale, int(width) * scale


def _image_sizes(scale: int) -> dict[str, Size]:
    pairs = (entry.split("=") for entry in _OF_IMAGES.split())
    return {ratio: _size(size, scale) for ratio, size in pairs}


# resolution -> ratio (height / width, as the tables spell it) -> (height, width)
SIZES: dict[str, dict[str, Size]] = {
    name: dict(zip(RATIO_OF_NAME.values(), map(_size, sizes.split()), strict=True))
    for name, sizes in _OF_VIDEOS.items()
} | {str(256 * scale): _image_sizes(scale) for scale in (1, 2, 4)}


def size_of(resolution: str, aspect: str) -> Size:
    """Pixels of a trained size.

    Args:
        resolution: a key of `SIZES`, e.g. "480p".
        aspect: height:width by name, e.g. "9:16", or a ratio of that resolution's table, e.g. "0.56".

    Returns:
        (height, width).

    Raises:
        ValueError: not in the tables; names the nearest entry.
    """
    for field, word in (("resolution", resolution), ("aspect", aspect)):
        require(isinstance(word, str), field, word, "a text, such as '480p' or '9:16'")
    if resolution not in SIZES:
        near = _nearest(resolution, SIZES)
        raise ValueError(
            f"resolution: given {resolution!r}, allowed: {', '.join(SIZES)}{_hint(near)} "
            "(or pass height and width)"
        )
    sizes = SIZES[resolution]
    ratio = RATIO_OF_NAME.get(aspect, aspect)
    if ratio in sizes:
        return sizes[ratio]
    names = [name for name, ratio in RATIO_OF_NAME.items() if ratio in sizes]
    allowed = names if len(names) == len(sizes) else list(sizes)
    near = _nearest(aspect, allowed)
    height, width = sizes.get(RATIO_OF_NAME.get(near, near), (0, 0))
    raise ValueError(
        f"aspect: given {aspect!r}, allowed at {resolution}: {', '.join(allowed)}"
        f"{_hint(near and f'{near}, {height} x {width}')} (height:width; or pass height and width)"
    )


def frames_of(duration: str | int) -> int:
    """Frames of a duration: a trained one by name ("2s" ... "32s", "1x" ... "16x"), or a number of frames.

    Raises:
        ValueError: unknown name (says the nearest), or a number that `check_frames` rejects.
    """
    if isinstance(duration, str) and not duration.isdigit():
        if duration not in FRAMES_OF_DURATION:
            raise ValueError(
                f"num_frames: given {duration!r}, allowed: {', '.join(FRAMES_OF_DURATION)} or a number of "
                f"frames{_hint(_nearest(duration, FRAMES_OF_DURATION))}"
            )
        return FRAMES_OF_DURATION[duration]
    is_whole = isinstance(duration, int | str) and not isinstance(duration, bool)
    require(is_whole, "num_frames", duration, "a whole number, or a trained duration such as '2s'")
    num_frames = int(duration)
    check_frames(num_frames)
    return num_frames


def frames_of_seconds(seconds: float) -> int:
    """Frames of a trained duration in seconds; ValueError names the nearest."""
    name = f"{seconds:g}s"
    if name not in FRAMES_OF_DURATION:
        known = [name for name in FRAMES_OF_DURATION if name.endswith("s")]
        raise ValueError(
            f"seconds: given {seconds:g}, allowed: {', '.join(name[:-1] for name in known)}"
            f"{_hint(_nearest(name, known)[:-1])} (or pass num_frames)"
        )
    return FRAMES_OF_DURATION[name]


def check_frames(num_frames: int) -> None:
    """ValueError unless this many frames can be sampled: 1 (an image), or from 17."""
    if num_frames != 1 and num_frames < MIN_VIDEO_FRAMES:
        near = 1 if num_frames < (1 + MIN_VIDEO_FRAMES) / 2 else MIN_VIDEO_FRAMES
        raise ValueError(
            f"num_frames: given {num_frames}, allowed: 1 (an image) or a number from {MIN_VIDEO_FRAMES}"
            f"{_hint(str(near))}"
        )


def size_arguments(
    *,
    resolution: str | None = None,
    aspect: str | None = None,
    seconds: float | None = None,
    num_frames: int | str | None = None,
    height: int | None = None,
    width: int | None = None,
) -> dict[str, int]:
    """A size said in any way, as height, width and num_frames.

    Args:
        resolution: see `size_of`; None = "480p", unless height and width say it.
        aspect: height:width; None = "9:16", unless height and width say it.
        seconds: a trained duration, see `frames_of_seconds`.
        num_frames: see `frames_of`; None and no seconds = 51 (2 s).
        height: pixels; together with width, instead of resolution and aspect.
        width: pixels.

    Raises:
        ValueError: not in the tables, too small, or said twice.
    """
    is_by_pixels = height is not None or width is not None
    if is_by_pixels and (resolution is not None or aspect is not None):
        raise ValueError(
            f"height, width: given {height}, {width} together with resolution {resolution!r} and aspect "
            f"{aspect!r}, allowed: one of the two ways to say a size"
        )
    if seconds is not None and num_frames is not None:
        raise ValueError(f"seconds: given {seconds:g} together with num_frames {num_frames}, allowed: one")
    if height is None or width is None:
        require(not is_by_pixels, "height, width", (height, width), "both or none")
        height, width = size_of("480p" if resolution is None else resolution, aspect or "9:16")
    for field, pixels in (("height", height), ("width", width)):
        is_valid = isinstance(pixels, int) and pixels >= MIN_PIXELS
        require(is_valid, field, pixels, f"whole pixels from {MIN_PIXELS}")
    if seconds is not None:
        frames = frames_of_seconds(seconds)
    else:
        frames = frames_of("2s" if num_frames is None else num_frames)
    return {"height": height, "width": width, "num_frames": frames}


def _nearest(given: str, names: Iterable[str]) -> str:
    value, unit = _number(given), given[-1:] if given[-1:].isalpha() else ""
    if value is None:
        return ""
    alike = [name for name in names if name.endswith(unit)]
    return min(alike, key=lambda name: abs((_number(name) or 0) - value), default="")


def _number(text: str) -> float | None:
    """The value of "480p", "2s", "0.56" or "9:16" (a ratio); None for other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?)|[a-z]?)", text.strip().lower())
    if not match:
        return None
    top, bottom = float(match[1]), float(match[2] or 1)
    return top / bottom if bottom else None


def _hint(near: str) -> str:
    return f"; nearest: {near}" if near else ""
