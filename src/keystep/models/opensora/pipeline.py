"""Open-Sora 1.2: text to video, image to video and video to video, as an ordinary diffusers pipeline.

After Open-Sora v1.2.0, `scripts/inference.py`. There is no negative prompt: guidance is against a learned
text.

Shape suffixes: B videos, C latent channels, T latent frames, H/W latent grid, L tokens, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from keystep.errors import require
from keystep.models import inputs, t5
from keystep.models.opensora import conditions, frames, loading, references, sizes, text
from keystep.models.opensora.frame_mask import FrameSchedule
from keystep.models.opensora.rows import describe_video, make_rows
from keystep.models.opensora.scheduler import RectifiedFlowScheduler
from keystep.models.opensora.transformer import STDiT3
from keystep.models.opensora.vae import AutoencoderKLOpenSora
from keystep.models.parts import AUTO, Place, choose_dtype, refuse_unknown
from keystep.models.video_pipeline import Frames, Generators, StepCallback, VideoPipeline, VideoPipelineOutput

Value = TypeVar("Value")


class OpenSoraPipeline(VideoPipeline):
    """Open-Sora 1.2 (arXiv 2412.20404).

    Args:
        tokenizer: of T5.
        text_encoder: T5-XXL's encoder.
        transformer: predicts the velocity of the latents.
        vae: the video autoencoder.
        scheduler: rectified flow; its timesteps depend on the size and length of the video.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = list(loading.OPTIONAL)

    tokenizer: PreTrainedTokenizerBase | None
    text_encoder: T5EncoderModel | None
    transformer: STDiT3
    vae: AutoencoderKLOpenSora
    scheduler: RectifiedFlowScheduler

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: T5EncoderModel | None,
        transformer: STDiT3,
        vae: AutoencoderKLOpenSora,
        scheduler: RectifiedFlowScheduler,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            transformer=transformer,
            vae=vae,
            scheduler=scheduler,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Place,
        *,
        vae: Any = AUTO,
        text_encoder: Any = AUTO,
        tokenizer: Any = AUTO,
        transformer: Any = AUTO,
        scheduler: Any = AUTO,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **others: Any,
    ) -> OpenSoraPipeline:
        """Load the released weights, or what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: a folder or hub id of the released transformer (config.json and
                weights), a folder that holds the released repositories under their names, or a folder or hub
                id of a saved pipeline (model_index.json).
            vae: folder, hub id or object instead of the saved one or `loading.VAE`.
            text_encoder: likewise, instead of the saved one or `t5.RELEASED`; None = none, for calls with
                embeddings.
            tokenizer: likewise; "auto" = the saved one, else where the text encoder is from.
            transformer: likewise, instead of the one there.
            scheduler: likewise, instead of the saved one or a `RectifiedFlowScheduler`.
            dtype: of all weights; None = float32.
            torch_dtype: the same by its older name.
            others: refused; there are no further options.

        Raises:
            ValueError: not found; another model or version (named); missing, extra or mis-shaped keys.
        """
        refuse_unknown(OpenSoraPipeline.from_pretrained, others)
        given = {
            "vae": vae,
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "transformer": transformer,
            "scheduler": scheduler,
        }
        chosen = choose_dtype(dtype, torch_dtype)
        return cls(**loading.load_pipeline(pretrained_model_name_or_path, given, chosen))

    size_arguments = staticmethod(sizes.size_arguments)

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: str | Sequence[str],
        aesthetic_score: float | None = 6.5,
        motion_score: float | None = None,
        camera_motion: str | None = None,
        clip_index: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`prompt_embeds` (prompts, L, D) and `prompt_attention_mask` (prompts, L) for `__call__`.

        Arguments and warnings as there.
        """
        has_encoder = self.tokenizer is not None and self.text_encoder is not None
        require(has_encoder, "prompt", prompt, "prompt_embeds instead, as the pipeline has no text encoder")
        scores = text.Scores(aesthetic_score, motion_score, camera_motion)
        texts = [text.prepare_prompt(p, scores, clip_index) for p in inputs.checked_prompts("prompt", prompt)]
        length = self.transformer.config["model_max_length"]
        return t5.embed(self.tokenizer, self.text_encoder, texts, length, self._execution_device)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | str | None = None,
        resolution: str | None = None,
        aspect: str | None = None,
        fps: float = 24,
        image: frames.Images | None = None,
        video: frames.Videos | None = None,
        edit_ratio: float | None = None,
        mask_strategy: str | list[str] | None = None,
        clip_index: int = 0,
        aesthetic_score: float | None = 6.5,
        motion_score: float | None = None,
        camera_motion: str | None = None,
        num_inference_steps: int = 30,
        guidance_scale: float = 7.0,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        prompt_attention_mask: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> VideoPipelineOutput | tuple[Frames]:
        """Generate videos.

        Args:
            prompt: one text or several. "|0| a day |1| a night" changes it from clip to clip.
            height: pixels; the video is rounded down to multiples of 8 (480 x 854 gives 480 x 848).
            width: pixels.
            num_frames: 1 (an image), from 17, or a trained duration such as "2s" (51, the default).
            resolution: a trained size instead of height and width, e.g. "720p"; None = "480p".
            aspect: height:width with resolution; None = "9:16".
            fps: frames per second that the model is told; always 120 for an image.
            image: becomes the first frame; one, or one a prompt. Resized and cropped to fill the video.
            video: its last 17 frames become the first ones, so it goes on; one, or one a prompt. With a
                `mask_strategy` the whole video is the reference.
            edit_ratio: 0 = image and video are kept (the default), 0.3 = sampled from 30 % noise on; below 1.
            mask_strategy: which latent frames come from where, see `conditions`; one, or one a prompt.
                Reference 0 is the image, then comes the video.
            clip_index: which clip of a longer video this is: selects the prompt's text and the conditions.
            aesthetic_score: appended to prompts that do not say it; None = not.
            motion_score: likewise; higher = more motion.
            camera_motion: likewise, e.g. "pan right".
            num_inference_steps: transformer calls; higher = finer, slower.
            guidance_scale: above 1 switches guidance on, with rows (cond, uncond) in one transformer call.
            num_videos_per_prompt: videos of each prompt, next to each other in the output.
            generator: source of all noise; the same one gives the same video.
            latents: the starting noise itself, (B, C, T, H, W).
            prompt_embeds: instead of prompt, (prompts, L, D).
            prompt_attention_mask: nonzero where `prompt_embeds` counts, (prompts, L); None = everywhere.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``; see `VideoPipelineOutput`.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as ``callback(pipe, step, timestep, tensors)`` after every step;
                ``latents`` in the dictionary it returns replace those of the pipeline.
            callback_on_step_end_tensor_inputs: which tensors it gets; only ``latents`` exists.

        Raises:
            ValueError: an argument is out of range; the message names it, its value and what is allowed.

        Warns:
            PromptTruncatedWarning: a prompt is longer than the model reads; says what was cut.
        """
        size = sizes.size_arguments(
            resolution=resolution, aspect=aspect, num_frames=num_frames, height=height, width=width
        )
        inputs.check_sampling(num_inference_steps, num_videos_per_prompt, guidance_scale, output_type)
        inputs.check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0
        require(is_rate, "fps", fps, "a number above 0")
        is_index = isinstance(clip_index, int) and not isinstance(clip_index, bool) and clip_index >= 0
        require(is_index, "clip_index", clip_index, "0, 1, ...")
        scores = text.Scores(aesthetic_score, motion_score, camera_motion)
        widths = self.transformer.config["model_max_length"], self.transformer.config["caption_channels"]
        num_prompts = text.count_prompts(prompt, prompt_embeds, prompt_attention_mask, widths)
        shape = self._latent_shape(num_prompts * num_videos_per_prompt, size)
        inputs.check_generator(generator, shape[0])
        inputs.check_latents(latents, shape)
        given = references.read(image, video, mask_strategy, edit_ratio, num_prompts, clip_index)
        placed = references.place(given, self.vae, size, clip_index)

        self._guidance_scale = guidance_scale
        self._interrupt = False
        if prompt_embeds is None:
            prompt_embeds, prompt_attention_mask = self.encode_prompt(
                prompt or "", scores.aesthetic, scores.motion, scores.camera, clip_index
            )
        arguments = make_rows(
            self.transformer,
            prompt_embeds,
            prompt_attention_mask,
            num_videos_per_prompt,
            self.do_classifier_free_guidance,
            describe_video(fps, size),
            self._execution_device,
        )
        noise = (
            self._draw(shape, generator) if latents is None else latents.to(self._execution_device).float()
        )
        encoded = references.encode(given, self.vae, size, noise.device)
        sample, frame_mask = conditions.apply(
            noise, repeat(encoded, num_videos_per_prompt), repeat(placed, num_videos_per_prompt)
        )
        self.scheduler.set_timesteps(
            num_inference_steps, device=self._execution_device, dtype=self.transformer.dtype, **size
        )
        schedule = FrameSchedule(frame_mask, self.scheduler) if any(placed) else None
        sample = self._denoise(sample, schedule, arguments, generator, callback_on_step_end)
        decoded = self._decode(sample, size["num_frames"], output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=decoded) if return_dict else (decoded,)

    def _latent_shape(self, num_videos: int, size: dict[str, int]) -> tuple[int, ...]:
        grid = self.vae.get_latent_size((size["num_frames"], size["height"], size["width"]))
        return num_videos, self.transformer.config["in_channels"], *grid

    def _draw(self, shape: tuple[int, ...], generator: Generators) -> torch.Tensor:
        """Standard normal noise, float32 whatever the model's dtype, as latents are throughout."""
        return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)

    def _denoise(
        self,
        sample: torch.Tensor,
        schedule: FrameSchedule | None,
        arguments: dict[str, torch.Tensor | None],
        generator: Generators,
        callback: StepCallback | None,
    ) -> torch.Tensor:
        """All steps; `schedule` says which frames take part in which, None = all in all."""

        def take_step(step: int, timestep: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
            if schedule is not None and schedule.needs_noise[step]:
                sample = schedule.begin(step, sample, self._draw(tuple(sample.shape), generator))
            # A frame mask of ones would change nothing but cost the embedding of a second timestep.
            active = None if schedule is None else schedule.active[step]
            velocity = self._predict(sample, timestep, arguments, active)
            if schedule is not None:
                velocity = schedule.mask_velocity(step, velocity)
            return self.scheduler.step(velocity, timestep, sample, return_dict=False)[0]

        return self._for_each_timestep(sample, take_step, callback)

    def _predict(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        arguments: dict[str, torch.Tensor | None],
        active_BT: torch.Tensor | None,
    ) -> torch.Tensor:
        """Velocity after guidance."""
        copies = 2 if self.do_classifier_free_guidance else 1
        rows = latents.repeat(copies, 1, 1, 1, 1)
        output = self.transformer(
            hidden_states=rows.to(self.transformer.dtype),
            timestep=timestep.expand(len(rows)),
            frame_mask=None if active_BT is None else active_BT.repeat(copies, 1),
            return_dict=False,
            **arguments,
        )[0]
        velocity = output.chunk(2, dim=1)[0]  # the second half is a variance that sampling does not use
        if copies == 1:
            return velocity
        cond, uncond = velocity.chunk(2)
        return uncond + self._guidance_scale * (cond - uncond)

    def _decode(self, latents: torch.Tensor, num_frames: int, output_type: str) -> Frames:
        if output_type == "latent":
            return latents
        video = self.vae.decode(latents.to(self.vae.dtype), num_frames, return_dict=False)[0]
        return self.video_processor.postprocess_video(video.float(), output_type=output_type)


def repeat(values: Sequence[Value], times: int) -> list[Value]:
    """Every value `times` times, next to each other."""
    return [value for value in values for _ in range(times)]
