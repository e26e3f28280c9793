"""Scene maps: the latent space of the toy model, specified by hand instead of learned by an encoder.

Each of the 16 frames is a 16 x 16 grid of 9 channels: the hue (cosine, sine) and a shape code (2), both times
a Gaussian blob at the object whose width follows its radius; the background's level; the centre (x, y), the
same in every cell; and a code of motion and pace (2), the same in every cell and frame. The last two let the
denoiser settle the path before the picture. Without the centre several faint objects compete in one clip;
without the code the words for motion matter only where noise hides every frame, and are learned last.
Only training uses this file: at inference the transformer makes the maps.

Shape suffixes: B clips, F frames, Y grid rows, X grid columns, C channels.
"""

import math

import torch
import torch.nn.functional as F

from keystep.models.toy.grammar import COLOURS, MOTIONS, SHAPES
from keystep.models.toy.render import background_levels
from keystep.models.toy.scenes import IMAGE_SIZE, Scenes

GRID_SIZE = 16
NUM_CHANNELS = 9
CELL = IMAGE_SIZE // GRID_SIZE  # pixels
BLOB_WIDTH = 0.7  # standard deviation of the blob, in radii
# The gains give every channel about unit variance.
BLOB_GAIN, BACKGROUND_GAIN, CENTRE_GAIN = 8.0, 4.0, 0.1
PACE_GAINS = (0.9, 1.8)  # slowly, quickly
_DIRECTIONS = {  # y points down; motions without a direction take the diagonals
    "rest": (0.0, 0.0),
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "bounce": (0.7, -0.7),
    "orbit": (0.7, 0.7),
    "grow": (-0.7, -0.7),
}
BACKGROUND_MIDDLE = 0.45


def _circle_codes(num_codes: int) -> torch.Tensor:
    angle = 2 * math.pi * torch.arange(num_codes) / num_codes
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def scene_maps(scenes: Scenes) -> torch.Tensor:
    """Compute the clean latents of a batch of scenes.

    Returns:
        float32, shape (B, C, F, Y, X), as the transformer takes it; values within -8 to 8.
    """
    axis = (torch.arange(GRID_SIZE) + 0.5) * CELL
    width_BF1 = BLOB_WIDTH * scenes.radius_BF[..., None]
    row_BFX = torch.exp(-0.5 * ((axis - scenes.x_BF[..., None]) / width_BF1).square())
    column_BFY = torch.exp(-0.5 * ((axis - scenes.y_BF[..., None]) / width_BF1).square())
    blob_B1FYX = BLOB_GAIN * (column_BFY[..., :, None] * row_BFX[..., None, :])[:, None]
    codes_BC = torch.cat(
        [_circle_codes(len(COLOURS))[scenes.colour_B], _circle_codes(len(SHAPES))[scenes.shape_B]], dim=1
    )
    level_NYX = F.avg_pool2d(background_levels()[:, None], CELL)[:, 0]
    ground_BYX = BACKGROUND_GAIN * (level_NYX[scenes.background_B] - BACKGROUND_MIDDLE)
    ground_B1FYX = ground_BYX[:, None, None].expand_as(blob_B1FYX)
    centre_BCF = CENTRE_GAIN * (torch.stack([scenes.x_BF, scenes.y_BF], dim=1) - IMAGE_SIZE / 2)
    centre_BCFYX = centre_BCF[..., None, None].expand(-1, -1, -1, GRID_SIZE, GRID_SIZE)
    motion_BC = torch.tensor([_DIRECTIONS[motion] for motion in MOTIONS])[scenes.motion_B]
    motion_BC = motion_BC * torch.tensor(PACE_GAINS)[scenes.pace_B][:, None]
    motion_BCFYX = motion_BC[..., None, None, None].expand_as(centre_BCFYX)
    blobs_BCFYX = blob_B1FYX * codes_BC[:, :, None, None, None]
    return torch.cat([blobs_BCFYX, ground_B1FYX, centre_BCFYX, motion_BCFYX], dim=1)
