"""Draws the scenes that captions leave open: where the object starts, how big it is, and its path.

Shape suffixes: B clips, F frames. Lengths are in pixels of the 64 x 64 video, y points down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.models.toy.grammar import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    PACES,
    SHAPES,
    SIZES,
    Caption,
    all_captions,
)

NUM_FRAMES = 16
IMAGE_SIZE = 64
_EDGE = 1.0  # the object keeps this far from the border
# (low, high) of the uniform draws; pairs are (slowly, quickly) or (small, large)
_RADIUS = ((6.5, 8.0), (10.0, 12.0))
_TRAVEL = ((10.0, 14.0), (30.0, 36.0))
_GROWTH = ((1.3, 1.4), (1.9, 2.1))
_NUM_BOUNCES = (1.0, 2.0)
_NUM_TURNS = (0.5, 1.25)
_BOUNCE_HEIGHT = (26.0, 32.0)
_ORBIT_RADIUS = (13.0, 15.0)
_ORBIT_CENTRE = (30.0, 34.0)


@dataclass(frozen=True)
class Scenes:
    """A batch of fully specified clips.

    Args:
        x_BF: horizontal centre of the object, float32, pixels.
        y_BF: vertical centre, float32, pixels.
        radius_BF: nominal radius, float32, pixels.
        shape_B: index into `SHAPES`, int64.
        colour_B: index into `COLOURS`, int64.
        background_B: index into `BACKGROUNDS`, int64.
        motion_B: index into `MOTIONS`, int64.
        pace_B: index into `PACES`, int64; 0 at rest.
    """

    x_BF: torch.Tensor
    y_BF: torch.Tensor
    radius_BF: torch.Tensor
    shape_B: torch.Tensor
    colour_B: torch.Tensor
    background_B: torch.Tensor
    motion_B: torch.Tensor
    pace_B: torch.Tensor


_CAPTIONS = all_captions()
_TRAINING_BY_MOTION = {
    motion: [caption for caption in _CAPTIONS if caption.motion == motion and not caption.is_held_out]
    for motion in MOTIONS
}


def sample_training_captions(num_captions: int, generator: torch.Generator) -> list[Caption]:
    """Draw captions of triples that are not held out, every motion equally often.

    Args:
        num_captions: how many.
        generator: source of randomness, advanced.
    """
    motions = torch.randint(len(MOTIONS), (num_captions,), generator=generator).tolist()
    picks = torch.rand(num_captions, generator=generator).tolist()
    pools = (_TRAINING_BY_MOTION[MOTIONS[motion]] for motion in motions)
    return [pool[int(pick * len(pool))] for pool, pick in zip(pools, picks, strict=True)]


def sample_scenes(captions: Sequence[Caption], generator: torch.Generator) -> Scenes:
    """Draw one scene for each caption: start, radius, speed and phase within what the words allow.

    Args:
        captions: B captions.
        generator: source of randomness, advanced by the same amount whatever the captions say.

    Raises:
        ValueError: there is no caption.
    """
    if not captions:
        raise ValueError("captions is empty; allowed: one caption or more")

    def index(field: str, words: Sequence[str]) -> torch.Tensor:
        return torch.tensor([words.index(getattr(caption, field)) for caption in captions])

    size_B = index("size", SIZES)
    pace_B = torch.tensor([int(caption.pace == PACES[1]) for caption in captions])
    motion_B = index("motion", MOTIONS)
    draws_KB = torch.rand(6, len(captions), generator=generator)
    x_BF, y_BF, radius_BF = _paths(motion_B, pace_B, size_B, draws_KB)
    shape_B, colour_B = index("shape", SHAPES), index("colour", COLOURS)
    return Scenes(
        x_BF, y_BF, radius_BF, shape_B, colour_B, index("background", BACKGROUNDS), motion_B, pace_B
    )


def _between(draw_B: torch.Tensor, low: torch.Tensor | float, high: torch.Tensor | float) -> torch.Tensor:
    return low + (high - low) * draw_B


def _choose(table: Sequence[tuple[float, float]], row_B: torch.Tensor, draw_B: torch.Tensor) -> torch.Tensor:
    low_B, high_B = torch.tensor(table)[row_B].unbind(-1)
    return _between(draw_B, low_B, high_B)


def _paths(
    motion_B: torch.Tensor, pace_B: torch.Tensor, size_B: torch.Tensor, draws_KB: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centre and radius in every frame; each motion overwrites the rows of its own clips."""
    is_motion = {word: (motion_B == row)[:, None] for row, word in enumerate(MOTIONS)}
    time_F = torch.linspace(0.0, 1.0, NUM_FRAMES)
    start_radius_B = _choose(_RADIUS, size_B, draws_KB[0])
    growth_B = torch.where(is_motion["grow"][:, 0], _choose(_GROWTH, pace_B, draws_KB[1]), 1.0)
    radius_BF = start_radius_B[:, None] * (1 + (growth_B[:, None] - 1) * time_F)
    margin_B = radius_BF[:, -1] + _EDGE

    def place(draw_B: torch.Tensor, travel_B: torch.Tensor | float) -> torch.Tensor:
        return _between(draw_B, margin_B, IMAGE_SIZE - margin_B - travel_B)

    travel_B = _choose(_TRAVEL, pace_B, draws_KB[1])
    x_BF = place(draws_KB[2], 0.0)[:, None].expand(-1, NUM_FRAMES)
    y_BF = place(draws_KB[3], 0.0)[:, None].expand(-1, NUM_FRAMES)
    forward_x_BF = place(draws_KB[2], travel_B)[:, None] + travel_B[:, None] * time_F
    forward_y_BF = place(draws_KB[3], travel_B)[:, None] + travel_B[:, None] * time_F
    x_BF = torch.where(is_motion["right"], forward_x_BF, x_BF)
    x_BF = torch.where(is_motion["left"], forward_x_BF.flip(-1), x_BF)
    y_BF = torch.where(is_motion["down"], forward_y_BF, y_BF)
    y_BF = torch.where(is_motion["up"], forward_y_BF.flip(-1), y_BF)

    arc_BF = (math.pi * torch.tensor(_NUM_BOUNCES)[pace_B][:, None] * time_F).sin().abs()
    height_BF = _between(draws_KB[3], *_BOUNCE_HEIGHT)[:, None] * arc_BF
    floor_B = IMAGE_SIZE - margin_B - _between(draws_KB[4], 0.0, 3.0)
    y_BF = torch.where(is_motion["bounce"], floor_B[:, None] - height_BF, y_BF)

    angle_BF = 2 * math.pi * (draws_KB[4][:, None] + torch.tensor(_NUM_TURNS)[pace_B][:, None] * time_F)
    orbit_BF = _between(draws_KB[1], *_ORBIT_RADIUS)[:, None]
    centre_x_BF = _between(draws_KB[2], *_ORBIT_CENTRE)[:, None]
    centre_y_BF = _between(draws_KB[3], *_ORBIT_CENTRE)[:, None]
    x_BF = torch.where(is_motion["orbit"], centre_x_BF + orbit_BF * angle_BF.cos(), x_BF)
    y_BF = torch.where(is_motion["orbit"], centre_y_BF + orbit_BF * angle_BF.sin(), y_BF)
    return x_BF, y_BF, radius_BF
