"""Videos in overlapping tiles and chunks of frames, as Open-Sora-Plan's autoencoder cuts and joins them.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/models/ae/videobase/causal_vae/modeling_causalvae.py`.
All tensors are (B, C, T, H, W).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Tensor = torch.Tensor
ROWS, COLUMNS = 3, 4  # dimensions


@dataclass(frozen=True)
class Tiling:
    """Sizes of tiles, in the pixels of what goes in and of what comes out.

    Attributes:
        size: height and width of a tile that goes in.
        size_out: height and width of a whole tile that comes out.
        frames: of a chunk that goes in.
        overlap: part of a tile that it shares with its neighbour.
    """

    size: int
    size_out: int
    frames: int
    overlap: float

    def is_needed(self, x: Tensor) -> bool:
        """Whether a video is more than one tile."""
        return x.shape[2] > self.frames or max(x.shape[3:]) > self.size

    def apply(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Apply a function of videos chunk by chunk and tile by tile, and join the results."""
        parts = []
        for start, stop in chunks(x.shape[2], self.frames):
            part = self._apply_to_tiles(function, x[:, :, start:stop])
            # a chunk starts with the last frame of the one before, which is there already
            parts.append(part[:, :, 1:] if start else part)
        return torch.cat(parts, dim=2)

    def _apply_to_tiles(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        stride, blended = int(self.size * (1 - self.overlap)), int(self.size_out * self.overlap)
        kept = self.size_out - blended
        above: list[Tensor] = []
        rows = []
        for top in range(0, x.shape[ROWS], stride):
            row = [
                function(x[..., top : top + self.size, left : left + self.size])
                for left in range(0, x.shape[COLUMNS], stride)
            ]
            for column, tile in enumerate(row):
                # In place, as the next tile's blend starts from a neighbour that is blended itself.
                if above:
                    blend(above[column], tile, blended, ROWS)
                if column:
                    blend(row[column - 1], tile, blended, COLUMNS)
            rows.append(torch.cat([tile[..., :kept, :kept] for tile in row], dim=COLUMNS))
            above = row
        return torch.cat(rows, dim=ROWS)


def chunks(num_frames: int, size: int) -> list[tuple[int, int]]:
    """(start, stop) of chunks of up to `size` frames; each starts with the last frame of the one before."""
    return [(start, min(start + size, num_frames)) for start in range(0, max(num_frames - 1, 1), size - 1)]


def blend(before: Tensor, tile: Tensor, extent: int, dim: int) -> None:
    """Fade from the end of a tile to the beginning of the next one along `dim`; changes `tile`."""
    extent = min(before.shape[dim], tile.shape[dim], extent)
    if not extent:
        return
    shape = [extent if axis == dim else 1 for axis in range(tile.ndim)]
    weight = (torch.arange(extent, device=tile.device) / extent).to(tile.dtype).view(shape)
    end = before.narrow(dim, before.shape[dim] - extent, extent)
    begin = tile.narrow(dim, 0, extent)
    begin.copy_(end * (1 - weight) + begin * weight)
