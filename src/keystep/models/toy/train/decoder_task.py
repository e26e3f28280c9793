"""What the decoder learns: the pixels of a frame from its scene maps, also when these are a little wrong."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from keystep.models.toy.decoder import SceneDecoder
from keystep.models.toy.latents import scene_maps
from keystep.models.toy.render import render
from keystep.models.toy.scenes import NUM_FRAMES, sample_scenes, sample_training_captions

_CLIPS_PER_BATCH, _FRAMES_PER_CLIP = 12, 4
_MAX_NOISE = 0.6  # a denoiser's maps are never exact: white and smooth errors up to this size
_L1_SHARE = 0.2  # the absolute error sharpens edges


class DecoderTask:
    """Regression from noisy maps to pixels; batches are a few random frames of each of twelve clips.

    Args:
        compiled: whether to compile the module, which takes half a minute and then runs faster.
    """

    name = "decoder"
    hold_share = 0.3

    def __init__(self, compiled: bool = True) -> None:
        self.decoder = SceneDecoder()
        self.module: nn.Module = self.decoder
        if compiled:
            self.module.compile()

    def matrices(self) -> list[Tensor]:
        """The MLP weights of the blocks."""
        layers = (layer for layer in self.decoder.blocks.modules() if isinstance(layer, nn.Linear))
        return [layer.weight for layer in layers]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Squared plus some absolute error of one batch, pixels in [-1, 1]."""
        scenes = sample_scenes(sample_training_captions(_CLIPS_PER_BATCH, generator), generator)
        keep = torch.randperm(NUM_FRAMES, generator=generator)[:_FRAMES_PER_CLIP]
        pixels = 2 * render(scenes)[:, keep].flatten(0, 1) - 1
        maps = scene_maps(scenes)[:, :, keep].transpose(1, 2).flatten(0, 1)
        error = self.module(_disturb(maps, generator)).float() - pixels
        return error.square().mean() + _L1_SHARE * error.abs().mean()


def _disturb(maps_NCYX: Tensor, generator: torch.Generator) -> Tensor:
    size_2N111 = _MAX_NOISE * torch.rand(2, len(maps_NCYX), 1, 1, 1, generator=generator).square()
    white = torch.randn(maps_NCYX.shape, generator=generator)
    coarse = torch.randn(*maps_NCYX.shape[:2], 4, 4, generator=generator)
    smooth = F.interpolate(coarse, maps_NCYX.shape[-2:], mode="bilinear", align_corners=False)
    return maps_NCYX + size_2N111[0] * white + size_2N111[1] * smooth
