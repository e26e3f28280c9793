"""Plain videos on disk: each prompt and seed is generated once, however long the search goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keystep.media import atomic_path
from keystep.metrics.quality import Video


@dataclass(frozen=True)
class Plain:
    """A plain video and its operations.

    Attributes:
        video: float32, (F, H, W, 3) in [0, 1], exactly as generated.
        flops: of the denoising loop.
    """

    video: Video
    flops: float


class PlainVideos:
    """A folder of them.

    Args:
        folder: made when the first one is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, prompt: str, seed: int) -> bool:
        """Whether it is there."""
        return self._path(prompt, seed).is_file()

    def get(self, prompt: str, seed: int, make: Callable[[], Plain]) -> Plain:
        """The plain video of a prompt and seed, made if it is not there."""
        path = self._path(prompt, seed)
        if not path.is_file():
            made = make()
            with atomic_path(path) as temporary:
                np.savez(temporary, video=made.video, flops=np.float64(made.flops))
        with np.load(path) as data:
            return Plain(data["video"], float(data["flops"]))

    def _path(self, prompt: str, seed: int) -> Path:
        return self.folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:16]}-s{seed}.npz"
