"""Tells a transformer without a table of positions where in the clip each cell lies.

Wan's rotary embedding carries the distance between two tokens only. The scene maps name the object's centre
as a place in the frame, which no distance gives. So the maps get three more channels, as the latents of Wan's
image-to-video models get those of their condition.

Shape suffixes: B clips, C channels, F frames, Y/X grid.
"""

import torch

NUM_POSITION_CHANNELS = 3


def with_positions(latents_BCFYX: torch.Tensor) -> torch.Tensor:
    """Append frame, row and column of every cell, each from -1 to 1.

    Args:
        latents_BCFYX: the noisy maps.

    Returns:
        (B, C + 3, F, Y, X), dtype and device of the maps.
    """
    axes = (torch.linspace(-1, 1, size).to(latents_BCFYX) for size in latents_BCFYX.shape[2:])
    positions_3FYX = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    positions_B3FYX = positions_3FYX.expand(len(latents_BCFYX), -1, -1, -1, -1)
    return torch.cat([latents_BCFYX, positions_B3FYX], dim=1)
