"""What the pipeline returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.utils.outputs import BaseOutput

Frames = np.ndarray | torch.Tensor | list[list[PIL.Image.Image]]


@dataclass
class OpenSoraPipelineOutput(BaseOutput):
    """What `OpenSoraPipeline` returns.

    Args:
        frames: by output type: ``np`` float32 in [0, 1] (B, frames, height, width, 3); ``pt`` the same as
            (B, frames, 3, height, width); ``pil`` B lists of images; ``latent`` (B, C, T, H, W).
    """

    frames: Frames
