"""Video files: write, read, put side by side.

Everywhere a video is a float array of shape (F, H, W, 3) in [0, 1]: F frames, H rows, W columns, RGB.
"""

from keystep.media.compose import choose_scale, side_by_side, upscale
from keystep.media.files import atomic_path, check_writable, write_text
from keystep.media.mp4 import encode_mp4, read_mp4, write_mp4

__all__ = [
    "atomic_path",
    "check_writable",
    "choose_scale",
    "encode_mp4",
    "read_mp4",
    "side_by_side",
    "upscale",
    "write_mp4",
    "write_text",
]
