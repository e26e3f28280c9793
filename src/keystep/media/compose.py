"""Enlarge tiny videos and put several side by side under labels.

Shapes: F frames, H rows, W columns, C = 3 colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Video = NDArray[np.floating]  # (F, H, W, 3) in [0, 1]

MIN_SHOWN_HEIGHT = 256  # pixels; smaller videos are enlarged for viewing
BACKGROUND = (18, 20, 24)
TEXT_COLOUR = (236, 238, 242)
GAP_FRAC = 0.03  # of the height, between videos and around them
TEXT_FRAC = 0.065  # of the height
MIN_TEXT_SIZE = 12  # pixels
LINE_SPACING = 1.5


def check_video(video: Video) -> None:
    """Refuse anything but a float array of shape (F, H, W, 3) with at least one pixel.

    Raises:
        ValueError: with the shape or type that was given.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or video.size == 0:
        raise ValueError(f"a video is (frames, height, width, 3), not {video.shape}")
    if not np.issubdtype(video.dtype, np.floating):
        raise ValueError(f"a video holds floats in [0, 1], not {video.dtype}")


def upscale(video: Video, factor: int) -> Video:
    """Enlarge by a whole factor, every pixel becoming a square, so that edges stay crisp.

    Raises:
        ValueError: not a video, or the factor is below 1.
    """
    check_video(video)
    if factor < 1:
        raise ValueError(f"scale is {factor}; it must be a whole number, at least 1")
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def choose_scale(video: Video) -> int:
    """The factor that brings a tiny video to about 256 rows; 1 for all others."""
    return max(1, MIN_SHOWN_HEIGHT // video.shape[1])


def side_by_side(videos: Sequence[Video], labels: Sequence[str]) -> NDArray[np.float32]:
    """Put videos of one shape in a row, each under its label.

    Args:
        videos: each (F, H, W, 3) in [0, 1], all of one shape.
        labels: a text for each, lines separated by newlines; long lines shrink to fit.

    Returns:
        float32 video, (F, H', W', 3), with even sides.

    Raises:
        ValueError: none given, shapes differ, or labels and videos do not pair up.
    """
    if not videos or len(videos) != len(labels):
        raise ValueError(f"{len(videos)} videos and {len(labels)} labels; give one label for each video")
    for video in videos:
        check_video(video)
        if video.shape != videos[0].shape:
            raise ValueError(
                f"videos side by side must have one shape, not {video.shape} and {videos[0].shape}"
            )
    num_frames, height, width, _ = videos[0].shape
    gap = max(2, round(GAP_FRAC * height))
    strip_HWC = _draw_labels(labels, width, gap, max(MIN_TEXT_SIZE, round(TEXT_FRAC * height)))
    top, total_width = strip_HWC.shape[:2]
    total_height = top + height + gap
    canvas = np.empty((num_frames, total_height + total_height % 2, total_width, 3), np.float32)
    canvas[:] = np.array(BACKGROUND, np.float32) / np.float32(255)
    canvas[:, :top] = strip_HWC
    for index, video in enumerate(videos):
        left = gap + index * (width + gap)
        canvas[:, top : top + height, left : left + width] = video
    return canvas


def _draw_labels(labels: Sequence[str], width: int, gap: int, size: int) -> NDArray[np.float32]:
    num_lines = max(label.count("\n") + 1 for label in labels)
    total_width = gap + len(labels) * (width + gap)
    strip_height = round(num_lines * size * LINE_SPACING) + gap
    image = Image.new("RGB", (total_width + total_width % 2, strip_height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    for index, label in enumerate(labels):
        for row, line in enumerate(label.split("\n")):
            position = (gap + index * (width + gap), gap + round(row * size * LINE_SPACING))
            draw.text(position, line, font=_fit_font(line, width, size), fill=TEXT_COLOUR)
    return np.asarray(image, np.float32) / np.float32(255)


def _fit_font(line: str, width: int, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    while size > 6 and ImageFont.load_default(size).getlength(line) > width:
        size -= 1
    return ImageFont.load_default(size)
