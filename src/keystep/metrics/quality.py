"""How far a video is from a reference video of the same prompt and seed.

All videos are float arrays of shape (F, H, W, 3) with values in [0, 1]: F frames, H rows, W columns, RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Video = NDArray[np.floating]  # (F, H, W, 3) in [0, 1]

DATA_RANGE = 1.0
SSIM_WINDOW = 7  # pixels, the side of scikit-image's sliding window
RANGE_SLACK = 1e-3  # decoders overshoot [0, 1] by rounding


@dataclass(frozen=True)
class Quality:
    """Distance of one video to its reference.

    Attributes:
        psnr: dB over all frames together; `inf` for identical videos.
        ssim: mean over frames of the structural similarity, at most 1.
        flicker_error: mean absolute difference between the two videos' frame differences, 0 to 2.
        frame_psnr: dB of every frame.
    """

    psnr: float
    ssim: float
    flicker_error: float
    frame_psnr: tuple[float, ...]


def _check_pair(video: Video, reference: Video) -> tuple[Video, Video]:
    if video.shape != reference.shape:
        raise ValueError(f"videos differ in shape: {video.shape} against the reference's {reference.shape}")
    for array in (video, reference):
        if array.ndim != 4 or array.shape[-1] != 3 or array.size == 0:
            raise ValueError(f"a video is (frames, height, width, 3), not {array.shape}")
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"a video holds floats in [0, 1], not {array.dtype}")
        low, high = float(array.min()), float(array.max())
        if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):  # also refuses nan
            raise ValueError(f"a video holds values in [0, 1], not [{low:.4g}, {high:.4g}]")
    # Half precision would lose differences below 2**-11.
    return video.astype(np.float64), reference.astype(np.float64)


def _decibel(squared_error: float) -> float:
    return math.inf if squared_error == 0 else 10 * math.log10(DATA_RANGE**2 / squared_error)


def compute_frame_psnr(video: Video, reference: Video) -> tuple[float, ...]:
    """PSNR of every frame in dB; `inf` where frames are identical.

    Raises:
        ValueError: shapes differ, or an array is not a float video in [0, 1].
    """
    video, reference = _check_pair(video, reference)
    errors_F = np.square(video - reference).mean(axis=(1, 2, 3))
    return tuple(_decibel(float(error)) for error in errors_F)


def compute_psnr(video: Video, reference: Video) -> float:
    """PSNR in dB of all frames together (one mean squared error), `inf` for identical videos.

    Raises:
        ValueError: shapes differ, or an array is not a float video in [0, 1].
    """
    video, reference = _check_pair(video, reference)
    return _decibel(float(np.square(video - reference).mean()))


def compute_ssim(video: Video, reference: Video) -> float:
    """Structural similarity, the mean over frames; 1 for identical videos.

    Raises:
        ValueError: shapes differ, no float video in [0, 1] is given, or a frame's side is under 7 pixels.
    """
    video, reference = _check_pair(video, reference)
    if min(video.shape[1:3]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs frames of at least {SSIM_WINDOW} pixels a side, not {video.shape[1:3]}")
    per_frame: Any = [  # scikit-image's hints allow tuples, which only come with options not used here
        structural_similarity(a, b, data_range=DATA_RANGE, channel_axis=-1, win_size=SSIM_WINDOW)
        for a, b in zip(video, reference, strict=True)
    ]
    return float(np.mean(per_frame))


def compute_flicker_error(video: Video, reference: Video) -> float:
    """Mean absolute difference between the frame differences of two videos; 0 for a single frame.

    Raises:
        ValueError: shapes differ, or an array is not a float video in [0, 1].
    """
    video, reference = _check_pair(video, reference)
    if len(video) < 2:
        return 0.0
    return float(np.abs(np.diff(video, axis=0) - np.diff(reference, axis=0)).mean())


def compare_videos(video: Video, reference: Video) -> Quality:
    """Every measure of this file at once.

    Raises:
        ValueError: as the single measures do.
    """
    return Quality(
        psnr=compute_psnr(video, reference),
        ssim=compute_ssim(video, reference),
        flicker_error=compute_flicker_error(video, reference),
        frame_psnr=compute_frame_psnr(video, reference),
    )
