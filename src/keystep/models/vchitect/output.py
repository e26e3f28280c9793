"""From Vchitect-2.0's latents to videos."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def decode(vae: Any, latents: torch.Tensor, chunk_size: int) -> torch.Tensor:
    """Decode a video frame by frame.

    Args:
        vae: an `AutoencoderKL` as Stable Diffusion 3 has it: its latents are scaled and shifted.
        latents: (B, F, C, Y, X).
        chunk_size: frames at a time.

    Returns:
        (B, 3, F, height, width) in float32, -1 to 1.
    """
    rows = latents.flatten(0, 1).to(vae.dtype) / vae.config["scaling_factor"]
    rows = rows + (vae.config["shift_factor"] or 0.0)
    images = torch.cat([vae.decode(chunk, return_dict=False)[0] for chunk in rows.split(chunk_size)])
    return images.unflatten(0, latents.shape[:2]).transpose(1, 2).float()
