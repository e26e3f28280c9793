"""The filter of `FilteredLatent`: what of a latent is video and what is noise, frequency by frequency.

SeaCache (arXiv 2602.18993), eq. 7: videos have a power of about f ** -3 at frequency f and noise has the same
at all of them, so a sampler settles the low frequencies first. The Wiener filter of each axis follows from
both, and its gain is scaled to a mean of 1, so that filtered latents of different noise levels compare.
"""

from __future__ import annotations

from functools import reduce

import torch

AXES = (-3, -2, -1)  # of frames
NOISE_RANGE = (1e-6, 1 - 1e-6)  # a filter needs a little of both
TINY = 1e-16  # the power of a constant is finite


def filter_frames(frames: torch.Tensor, noise: float, power: float) -> torch.Tensor:
    """Latents, filtered for their noise level.

    Args:
        frames: (..., T, H, W), frames in latent pixels.
        noise: share of noise, 0 to 1: x = (1 - noise) * video + noise * Gaussian, up to a factor.
        power: exponent of the videos' spectrum.

    Returns:
        The same shape, float32.
    """
    gains = [_gain(frames.shape[axis], noise, power, frames.device) for axis in AXES]
    gain = reduce(torch.mul, [gains[0][:, None, None], gains[1][:, None], gains[2]])
    return torch.fft.ifftn(torch.fft.fftn(frames.float(), dim=AXES) * gain, dim=AXES).real


def _gain(length: int, noise: float, power: float, device: torch.device) -> torch.Tensor:
    """Gain of each frequency along one axis, mean 1; the mean of a product of axes is that of their means."""
    low, high = NOISE_RANGE
    noise = min(max(noise, low), high)
    video_power = 1 / (torch.fft.fftfreq(length, device=device).abs().pow(power) + TINY)
    gain = (1 - noise) * video_power / ((1 - noise) ** 2 * video_power + noise**2)
    return gain / gain.mean()
