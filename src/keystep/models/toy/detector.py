"""Reads colour, shape, size, motion with its pace, and background off the pixels of a clip, without learning.

The object is what is saturated. Colour is its nearest palette entry, shape the template that overlaps it
best, motion a few rules on the path of its centroid and the growth of its area, background the nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.models.toy.grammar import BACKGROUNDS, COLOURS, SHAPES, SIZES, Caption
from keystep.models.toy.render import PALETTE, background_levels, coverage, pixel_grid, shape_areas

FIELDS = ("colour", "shape", "motion", "background")
NOTHING = "none"
_GREY_SATURATION, _FULL_SATURATION = 0.15, 0.45  # max - min of a pixel's channels: background, object
_MIN_AREA = 20.0  # pixels; a small circle covers 130
_SIZE_LIMIT = 9.0  # pixels of radius between small and large
# Motion limits, pixels unless noted; each lies midway between what the generator draws for the two sides.
_STILL_RANGE, _ORBIT_RANGE = 5.0, 9.0
_GROWS, _GROWS_FAST = 1.14, 1.55  # ratio of radii, last three frames over first three
_FAST_TRAVEL, _FAST_ORBIT_PATH = 21.0, 76.0
_FAST_BOUNCE_FOLDS, _RETURN_SHARE = 3.0, 0.4  # path over range; net over range
_DETOUR, _SIDEWAYS = 1.4, 6.0  # a straight path is at most this much longer than its range, this wide


@dataclass(frozen=True)
class Reading:
    """What the detector saw in one clip; a field that fits nothing reads ``none``.

    Args:
        colour: one of `COLOURS`.
        shape: one of `SHAPES`.
        motion: motion and pace as in a caption, ``left slowly``, or ``rest``.
        background: one of `BACKGROUNDS`.
        size: one of `SIZES`, of the first frame.
    """

    colour: str
    shape: str
    motion: str
    background: str
    size: str

    def matches(self, caption: Caption) -> dict[str, bool]:
        """For each of `FIELDS`, whether the clip shows what the caption says."""
        wanted_motion = f"{caption.motion} {caption.pace}".strip()
        return {
            "colour": self.colour == caption.colour,
            "shape": self.shape == caption.shape,
            "motion": self.motion == wanted_motion,
            "background": self.background == caption.background,
        }


def detect(video: torch.Tensor) -> Reading:
    """Read one clip.

    Args:
        video: float in [0, 1], shape (frames, 64, 64, 3).

    Raises:
        ValueError: the shape is another one.
    """
    if video.ndim != 4 or video.shape[1:] != (64, 64, 3):
        raise ValueError(f"video has shape {tuple(video.shape)}; allowed: (frames, 64, 64, 3)")
    pixels = video.float()
    saturation = pixels.amax(-1) - pixels.amin(-1)
    mask_FHW = ((saturation - _GREY_SATURATION) / (_FULL_SATURATION - _GREY_SATURATION)).clamp(0, 1)
    background = _background(pixels, mask_FHW)
    area_F = mask_FHW.sum((1, 2))
    if (area_F < _MIN_AREA).any():
        return Reading(NOTHING, NOTHING, NOTHING, background, NOTHING)
    x_1W, y_H1 = pixel_grid(pixels.device)
    x_F = (mask_FHW * x_1W).sum((1, 2)) / area_F
    y_F = (mask_FHW * y_H1).sum((1, 2)) / area_F
    shape, radius_F = _shape(mask_FHW, x_F, y_F, area_F)
    size = SIZES[int(radius_F[0] > _SIZE_LIMIT)]
    return Reading(_colour(pixels, mask_FHW), shape, _motion(x_F, y_F, area_F.sqrt()), background, size)


def accuracy(videos: Sequence[torch.Tensor], captions: Sequence[Caption]) -> dict[str, float]:
    """Share of clips that show what their caption says.

    Args:
        videos: clips as `detect` takes them.
        captions: as many captions.

    Returns:
        A share in [0, 1] for each of `FIELDS`, and ``all``: every field right at once.
    """
    rows = [detect(video).matches(caption) for video, caption in zip(videos, captions, strict=True)]
    shares = {field: sum(row[field] for row in rows) / len(rows) for field in FIELDS}
    return shares | {"all": sum(all(row.values()) for row in rows) / len(rows)}


def _colour(pixels_FHWC: torch.Tensor, mask_FHW: torch.Tensor) -> str:
    core = mask_FHW.eq(1).float()[..., None]  # edges mix with the background
    mean_C = (pixels_FHWC * core).sum((0, 1, 2)) / core.sum().clamp(min=1)
    return COLOURS[int((PALETTE.to(mean_C) - mean_C).square().sum(-1).argmin())]


def _shape(
    mask_FHW: torch.Tensor, x_F: torch.Tensor, y_F: torch.Tensor, area_F: torch.Tensor
) -> tuple[str, torch.Tensor]:
    x_1W, y_H1 = pixel_grid(mask_FHW.device)
    radius_FK = (area_F[:, None] / shape_areas().to(area_F)).sqrt()
    dx, dy = torch.broadcast_tensors(x_1W - x_F[:, None, None], y_H1 - y_F[:, None, None])
    template_FHWK = coverage(dx, dy, radius_FK[:, None, None, :])
    mask = mask_FHW[..., None]
    overlap_K = torch.minimum(mask, template_FHWK).sum((0, 1, 2)) / torch.maximum(mask, template_FHWK).sum(
        (0, 1, 2)
    )
    best = int(overlap_K.argmax())
    return SHAPES[best], radius_FK[:, best]


def _background(pixels_FHWC: torch.Tensor, mask_FHW: torch.Tensor) -> str:
    free = mask_FHW.eq(0).float()
    grey = pixels_FHWC.mean(-1)
    levels = background_levels().to(grey)
    errors = torch.stack([((grey - level).square() * free).sum() for level in levels])
    return BACKGROUNDS[int(errors.argmin())]


def _motion(x_F: torch.Tensor, y_F: torch.Tensor, extent_F: torch.Tensor) -> str:
    growth = float(extent_F[-3:].mean() / extent_F[:3].mean())
    range_x, range_y = float(x_F.max() - x_F.min()), float(y_F.max() - y_F.min())
    path = float((x_F.diff().square() + y_F.diff().square()).sqrt().sum())
    if growth > _GROWS:
        return "grow quickly" if growth > _GROWS_FAST else "grow slowly"
    if max(range_x, range_y) < _STILL_RANGE:
        return "rest"
    if min(range_x, range_y) > _ORBIT_RANGE:
        return "orbit quickly" if path > _FAST_ORBIT_PATH else "orbit slowly"
    is_across = range_x > range_y
    wide, narrow = (range_x, range_y) if is_across else (range_y, range_x)
    along_F = x_F if is_across else y_F
    net = float(along_F[-1] - along_F[0])
    if narrow > _SIDEWAYS:
        return NOTHING
    if not is_across and abs(net) < _RETURN_SHARE * wide:
        return "bounce quickly" if path > _FAST_BOUNCE_FOLDS * wide else "bounce slowly"
    if path > _DETOUR * wide:
        return NOTHING
    pace = "quickly" if wide > _FAST_TRAVEL else "slowly"
    direction = ("left", "right") if is_across else ("up", "down")
    return f"{direction[int(net > 0)]} {pace}"
