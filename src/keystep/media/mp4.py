"""MP4 files with H.264 video: what every browser and player opens.

Shapes: F frames, H rows, W columns, RGB last.
"""

from __future__ import annotations

import os
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import InvalidDataError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from keystep.media.compose import Video, upscale
from keystep.media.files import atomic_path

DEFAULT_FPS = 8.0
DEFAULT_CRF = 16  # visually lossless; 0 would be 4:4:4 only, 23 is the encoder's own default
KEY_FRAME_INTERVAL = 8  # frames; scrubbing decodes at most this many
BT709 = 1  # number of the colour space in H.264's tables


def write_mp4(
    path: str | Path, video: Video, fps: float = DEFAULT_FPS, scale: int = 1, crf: int = DEFAULT_CRF
) -> None:
    """Write a video whole or not at all.

    Args:
        path: the file; its folder is made if absent, an existing file is replaced.
        video: floats in [0, 1], shape (F, H, W, 3). Odd sides are padded by one repeated row or column,
            which H.264's halved chroma planes need.
        fps: frames per second.
        scale: enlarge by this factor without smoothing first, so that tiny videos stay crisp.
        crf: quality, 0 to 51; higher = smaller and worse.

    Raises:
        ValueError: not a video, or a number out of range.
        OSError: the place cannot be written.
    """
    frames_FHWC = _to_bytes(video, scale)
    if not fps > 0:
        raise ValueError(f"fps is {fps}; it must be above 0")
    if not 0 <= crf <= 51:
        raise ValueError(f"crf is {crf}; allowed: 0 to 51")
    with atomic_path(path) as temporary:
        _encode(temporary, frames_FHWC, fps, crf)


def encode_mp4(video: Video, fps: float = DEFAULT_FPS, scale: int = 1, crf: int = DEFAULT_CRF) -> bytes:
    """The same file as `write_mp4` makes, as bytes."""
    # Moving the index to the front rereads the file, so memory alone will not do.
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "video.mp4")
        write_mp4(path, video, fps, scale, crf)
        return Path(path).read_bytes()


def read_mp4(path: str | Path) -> tuple[NDArray[np.float32], float]:
    """Read every frame of a video file.

    Returns:
        The video, float32 in [0, 1], shape (F, H, W, 3), and its frames per second.

    Raises:
        ValueError: the file holds no readable video.
        OSError: it cannot be opened.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} holds no video")
            stream = container.streams.video[0]
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            fps = float(stream.average_rate or DEFAULT_FPS)
    except InvalidDataError as error:
        raise ValueError(f"{path} is not a readable video: {error}") from None
    return np.stack(frames).astype(np.float32) / np.float32(255), fps


def _to_bytes(video: Video, scale: int) -> NDArray[np.uint8]:
    video = upscale(video, scale)
    _, height, width, _ = video.shape
    margins = np.array([(0, 0), (0, height % 2), (0, width % 2), (0, 0)])
    padded = np.pad(video, margins, mode="edge")
    return (np.clip(np.nan_to_num(padded), 0, 1) * 255).round().astype(np.uint8)


def _encode(path: Path, frames_FHWC: NDArray[np.uint8], fps: float, crf: int) -> None:
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames_FHWC.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "g": str(KEY_FRAME_INTERVAL)}
        # Untagged files are shown with other colours by players that guess the colour space from the size.
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        for frame_HWC in frames_FHWC:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24").reformat(
                format="yuv420p",
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
                dst_colorspace=Colorspace.ITU709,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
