"""The second toy model: a Wan transformer, called once a guidance branch, in the first one's world.

Shape suffixes: see `keystep.models.toy.pipeline`.
"""

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from keystep.models.toy.latents import GRID_SIZE
from keystep.models.toy.pipeline import ToyPipeline
from keystep.models.toy.positions import with_positions
from keystep.models.toy.scenes import NUM_FRAMES


class ToyFlowPipeline(ToyPipeline):
    """Makes the clips that `ToyPipeline` makes, from the same prompts, with a transformer of another kind.

    With guidance, each step calls the transformer twice: for the prompt, then for the negative prompt.
    Arguments of construction and call are those of `ToyPipeline`.
    """

    transformer: WanTransformer3DModel  # pyright: ignore[reportIncompatibleVariableOverride]

    def _latent_shape(self, num_videos: int) -> tuple[int, ...]:
        return num_videos, self.transformer.config["out_channels"], NUM_FRAMES, GRID_SIZE, GRID_SIZE

    def _predict(self, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        rows = with_positions(latents)
        timestep_B = timestep.expand(len(rows))
        branches = embeds.split(len(rows))  # unconditional, conditional; the latter alone without guidance
        with self.transformer.cache_context("cond"):
            cond = self.transformer(rows, timestep_B, branches[-1], return_dict=False)[0]
        if not self.do_classifier_free_guidance:
            return cond
        with self.transformer.cache_context("uncond"):
            uncond = self.transformer(rows, timestep_B, branches[0], return_dict=False)[0]
        return uncond + self._guidance_scale * (cond - uncond)
