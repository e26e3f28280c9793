"""Text to video with the toy models, as an ordinary diffusers pipeline.

Shape suffixes: B videos, C latent channels, F frames, Y/X latent grid, L tokens, D text width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from keystep.models import inputs
from keystep.models.toy.decoder import SceneDecoder
from keystep.models.toy.text import embed_prompts, warn_about_unknown_words

Frames = np.ndarray | torch.Tensor | list[list[PIL.Image.Image]]
StepCallback = Callable[["ToyPipeline", int, torch.Tensor, dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@dataclass
class ToyPipelineOutput(BaseOutput):
    """What the toy pipelines return.

    Args:
        frames: by output type: ``np`` float32 in [0, 1] (B, F, 64, 64, 3); ``pt`` the same as
            (B, F, 3, 64, 64); ``pil`` B lists of F images; ``latent`` (B, C, F, Y, X).
    """

    frames: Frames


class ToyPipeline(DiffusionPipeline):
    """Makes 16-frame 64 x 64 clips of a coloured shape that moves, from a prompt.

    Args:
        transformer: predicts the flow-matching velocity of the latents.
        scheduler: flow-match Euler, or any diffusers scheduler set to flow prediction.
        text_encoder: embeds the prompt's words.
        tokenizer: splits it into them.
        vae: the decoder; there is no encoder.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _callback_tensor_inputs = ["latents"]

    transformer: LatteTransformer3DModel | WanTransformer3DModel
    scheduler: Any
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast
    vae: SceneDecoder

    def __init__(
        self,
        transformer: LatteTransformer3DModel | WanTransformer3DModel,
        scheduler: SchedulerMixin,
        text_encoder: T5EncoderModel,
        tokenizer: PreTrainedTokenizerFast,
        vae: SceneDecoder,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            vae=vae,
        )
        self.video_processor = VideoProcessor(do_resize=False, vae_scale_factor=vae.config["upscale"])
        self._guidance_scale = 1.0
        self._num_timesteps = 0
        self._current_timestep: torch.Tensor | None = None
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Weight of the prompt against the negative prompt in the current call."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the unconditional branch is evaluated too."""
        return self._guidance_scale > 1

    @property
    def num_timesteps(self) -> int:
        """Sampling steps of the current generation."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> torch.Tensor | None:
        """Timestep of the current transformer call; None before the first."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """A callback sets ``pipe._interrupt = True`` to skip the remaining steps."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        negative_prompt: str | list[str] | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 2.0,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
    ) -> ToyPipelineOutput | tuple[Frames]:
        """Generate clips.

        Args:
            prompt: one text or several; words outside the grammar are warned about and ignored.
            negative_prompt: what guidance moves away from; None is the empty prompt.
            num_inference_steps: sampling steps; higher = finer, slower.
            guidance_scale: above 1 switches guidance on; `ToyPipeline` evaluates rows (uncond, cond) in one
                transformer call, `ToyFlowPipeline` calls it for each.
            num_videos_per_prompt: clips of each prompt, next to each other in the output.
            generator: source of the starting noise; the same one gives the same clip.
            latents: the starting noise itself, (B, C, F, Y, X).
            output_type: ``np``, ``pt``, ``pil`` or ``latent``; see `ToyPipelineOutput`.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as ``callback(pipe, step, timestep, tensors)`` after every step;
                ``latents`` in the dictionary it returns replace those of the pipeline.
            callback_on_step_end_tensor_inputs: which tensors it gets; only ``latents`` exists.

        Raises:
            ValueError: an argument is out of range; the message names it, its value and what is allowed.
        """
        prompts = inputs.checked_prompts("prompt", prompt)
        negatives = inputs.checked_prompts(
            "negative_prompt", "" if negative_prompt is None else negative_prompt, len(prompts)
        )
        inputs.check_count("num_inference_steps", num_inference_steps)
        inputs.check_count("num_videos_per_prompt", num_videos_per_prompt)
        inputs.check_guidance(guidance_scale)
        inputs.check_output_type(output_type)
        inputs.check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        num_videos = len(prompts) * num_videos_per_prompt
        inputs.check_generator(generator, num_videos)
        inputs.check_latents(latents, self._latent_shape(num_videos))
        warn_about_unknown_words(self.tokenizer, prompts + negatives)

        self._guidance_scale = guidance_scale
        self._interrupt = False
        embeds = self._embed(prompts, negatives, num_videos_per_prompt)
        sample: torch.Tensor = self._prepare_latents(num_videos, generator, latents)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        timesteps = self.scheduler.timesteps
        progress_bar: Any = self.progress_bar  # its decorator hides the signature from type checkers
        self._num_timesteps = len(timesteps)
        with progress_bar(total=len(timesteps)) as bar:
            for step, timestep in enumerate(timesteps):
                if self.interrupt:
                    continue
                self._current_timestep = timestep
                velocity = self._predict(sample, timestep, embeds)
                sample = self.scheduler.step(velocity, timestep, sample, return_dict=False)[0]
                if callback_on_step_end is not None:
                    returned = callback_on_step_end(self, step, timestep, {"latents": sample})
                    sample = returned.get("latents", sample)
                bar.update()

        frames = self._decode(sample, output_type)
        self.maybe_free_model_hooks()
        return ToyPipelineOutput(frames=frames) if return_dict else (frames,)

    def _latent_shape(self, num_videos: int) -> tuple[int, ...]:
        config = self.transformer.config
        size = config["sample_size"]
        return num_videos, config["in_channels"], config["video_length"], size, size

    def _embed(self, prompts: list[str], negatives: list[str], num_videos_per_prompt: int) -> torch.Tensor:
        texts = [negatives, prompts] if self.do_classifier_free_guidance else [prompts]
        halves = [embed_prompts(self.tokenizer, self.text_encoder, half) for half in texts]
        return torch.cat([half.repeat_interleave(num_videos_per_prompt, dim=0) for half in halves])

    def _prepare_latents(
        self,
        num_videos: int,
        generator: torch.Generator | list[torch.Generator] | None,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        device, dtype = self._execution_device, self.transformer.dtype
        if latents is not None:
            return latents.to(device, dtype)
        return randn_tensor(self._latent_shape(num_videos), generator=generator, device=device, dtype=dtype)

    def _predict(self, latents: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        rows = torch.cat([latents, latents]) if self.do_classifier_free_guidance else latents
        with self.transformer.cache_context("cond_uncond"):  # diffusers' own cache hooks ask for it
            velocity = self.transformer(
                rows, timestep=timestep.expand(len(rows)), encoder_hidden_states=embeds, return_dict=False
            )[0]
        if not self.do_classifier_free_guidance:
            return velocity
        uncond, cond = velocity.chunk(2)
        return uncond + self._guidance_scale * (cond - uncond)

    def _decode(self, latents: torch.Tensor, output_type: str) -> Frames:
        if output_type == "latent":
            return latents
        video = self.vae.decode(latents.to(self.vae.dtype), return_dict=False)[0]
        return self.video_processor.postprocess_video(video.float(), output_type=output_type)
