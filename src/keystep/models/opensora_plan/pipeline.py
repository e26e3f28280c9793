"""Text to video with Open-Sora-Plan 1.1, as an ordinary diffusers pipeline.

Source: PKU-YuanGroup/Open-Sora-Plan v1.1.0, `opensora/sample/pipeline_videogen.py`.

Shape suffixes: B videos, R rows (B, or 2 B with guidance), L tokens, C channels, T latent frames, Y/X latent
rows and columns, F frames, H/W pixels.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from keystep.models import inputs
from keystep.models.opensora_plan import checks, loading, sizes
from keystep.models.opensora_plan.text import encode_negatives, encode_prompts, prepare_prompts
from keystep.models.opensora_plan.transformer import OpenSoraPlanTransformer3DModel
from keystep.models.opensora_plan.vae import CausalVideoVAE
from keystep.models.parts import AUTO, Place, choose_dtype, refuse_unknown
from keystep.models.video_pipeline import Frames, Generators, StepCallback, VideoPipeline, VideoPipelineOutput

Prompts = str | list[str] | None


class OpenSoraPlanPipeline(VideoPipeline):
    """Makes 65 or 221 frames of 512 x 512 from a prompt.

    Args:
        tokenizer: of T5.
        text_encoder: T5 v1.1 XXL.
        vae: the causal video autoencoder.
        transformer: predicts noise and its variance, which is dropped.
        scheduler: PNDM, or any diffusers scheduler set to what the transformer predicts.
    """

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components = list(loading.OPTIONAL)

    size_arguments = staticmethod(sizes.size_arguments)
    load_arguments = staticmethod(sizes.load_arguments)

    tokenizer: PreTrainedTokenizerBase | None
    text_encoder: T5EncoderModel | None
    vae: CausalVideoVAE | None
    transformer: OpenSoraPlanTransformer3DModel
    scheduler: Any

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase | None,
        text_encoder: T5EncoderModel | None,
        vae: CausalVideoVAE | None,
        transformer: OpenSoraPlanTransformer3DModel,
        scheduler: SchedulerMixin,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            transformer=transformer,
            scheduler=scheduler,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Place,
        *,
        size: str | None = None,
        vae: Any = AUTO,
        text_encoder: Any = AUTO,
        tokenizer: Any = AUTO,
        transformer: Any = AUTO,
        scheduler: Any = AUTO,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **others: Any,
    ) -> OpenSoraPlanPipeline:
        """Load the released checkpoint, or what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: `LanguageBind/Open-Sora-Plan-v1.1.0` or its folder (with `vae/`,
                `65x512x512/`, `221x512x512/`, each config.json and weights), or a folder or hub id of a
                saved pipeline (model_index.json).
            size: which checkpoint of the released layout, "65x512x512" (default) or "221x512x512".
            vae: folder with config.json and weights, hub id, or object instead of the one there; None =
                none, for latents only.
            text_encoder: likewise, instead of the saved one or `t5.RELEASED`; None = none, for calls with
                embeddings.
            tokenizer: likewise; "auto" = the saved one, else where the text encoder is from.
            transformer: likewise, instead of the saved one or the folder of `size`.
            scheduler: likewise, instead of the saved one or PNDM with its defaults.
            dtype: of all weights; None = float32.
            torch_dtype: the same by its older name.
            others: refused; there are no further options.

        Raises:
            ValueError: an argument that does not exist, a config of another model, or missing, extra or
                mis-shaped keys; names them.
        """
        refuse_unknown(OpenSoraPlanPipeline.from_pretrained, others)
        given = {
            "vae": vae,
            "text_encoder": text_encoder,
            "tokenizer": tokenizer,
            "transformer": transformer,
            "scheduler": scheduler,
        }
        chosen = choose_dtype(dtype, torch_dtype)
        return cls(**loading.load_pipeline(pretrained_model_name_or_path, size, given, chosen))

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompts = None,
        negative_prompt: Prompts = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int = 150,
        guidance_scale: float = 7.5,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
        clean_caption: bool = True,
    ) -> VideoPipelineOutput | tuple[Frames]:
        """Generate videos.

        Args:
            prompt: one text or several; more than 300 tokens are cut with a warning. A prompt alone is cut
                where it ends, several are filled up to 300 tokens, so that the same prompt and seed give
                another video in a batch of prompts.
            negative_prompt: what guidance moves away from; None is the empty prompt.
            height: pixels, a multiple of 16; None = what the checkpoint was trained at, 512.
            width: likewise.
            num_frames: None = as many as the checkpoint makes, the only number there is.
            num_inference_steps: sampling steps; higher = finer, slower. 150 PNDM steps are 159 transformer
                calls.
            guidance_scale: above 1 switches guidance on, with rows (uncond, cond) in one transformer call.
            num_videos_per_prompt: videos of each prompt, next to each other in the output.
            generator: source of the starting noise, and of what the sampler draws.
            latents: the starting noise itself, (B, C, T, Y, X).
            prompt_embeds: (prompts, L, C) instead of `prompt`.
            negative_prompt_embeds: of the same shape, instead of `negative_prompt`.
            output_type: ``pil``, ``np``, ``pt`` or ``latent``; see `VideoPipelineOutput`.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as ``callback(pipe, index, timestep, tensors)`` after every
                transformer call; ``latents`` in the dictionary it returns replace those of the pipeline.
            callback_on_step_end_tensor_inputs: which tensors it gets; only ``latents`` exists.
            clean_caption: whether prompts are cleaned of addresses, tags and odd punctuation, as in training.

        Raises:
            ValueError: an argument is out of range; the message names it, its value and what is allowed.
        """
        checks.check_sampling(self, num_inference_steps, guidance_scale, output_type)
        inputs.warn_unless_guided(negative_prompt, guidance_scale)
        inputs.check_count("num_videos_per_prompt", num_videos_per_prompt)
        inputs.check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        texts = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
        }
        num_prompts = checks.check_text(self, **texts, is_guided=guidance_scale > 1)
        num_videos = num_prompts * num_videos_per_prompt
        shape = num_videos, *checks.latent_size(self.transformer.config, num_frames, height, width)
        inputs.check_generator(generator, num_videos)
        inputs.check_latents(latents, shape)

        self._guidance_scale, self._interrupt = guidance_scale, False
        embeds_RLC = self.encode_prompt(
            **texts, num_videos_per_prompt=num_videos_per_prompt, clean_caption=clean_caption
        )
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        sample = self._prepare_latents(shape, generator, latents)
        sample = self._denoise(sample, embeds_RLC, generator, callback_on_step_end)
        frames = self._decode(sample, output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)

    @torch.no_grad()
    def encode_prompt(
        self,
        prompt: Prompts = None,
        negative_prompt: Prompts = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        num_videos_per_prompt: int = 1,
        clean_caption: bool = True,
    ) -> torch.Tensor:
        """The text of a transformer call.

        Args:
            prompt: texts, see `__call__`.
            negative_prompt: likewise; encoded where `do_classifier_free_guidance`.
            prompt_embeds: instead of `prompt`.
            negative_prompt_embeds: instead of `negative_prompt`.
            num_videos_per_prompt: rows of each prompt, next to each other.
            clean_caption: see `__call__`.

        Returns:
            (R, L, C) in the transformer's dtype, rows (uncond, cond) with guidance.
        """
        device, encoder = self._execution_device, (self.tokenizer, self.text_encoder)
        if prompt_embeds is None:
            prompts = prepare_prompts(inputs.checked_prompts("prompt", prompt), clean_caption)
            prompt_embeds = encode_prompts(*encoder, prompts, device)
        halves = [prompt_embeds]
        if self.do_classifier_free_guidance:
            if negative_prompt_embeds is None:
                texts = inputs.checked_prompts("negative_prompt", negative_prompt or "", len(prompt_embeds))
                prompts = prepare_prompts(texts, clean_caption)
                negative_prompt_embeds = encode_negatives(*encoder, prompts, prompt_embeds.shape[1], device)
            halves = [negative_prompt_embeds, prompt_embeds]
        rows = [half.to(device, self.transformer.dtype) for half in halves]
        return torch.cat([half.repeat_interleave(num_videos_per_prompt, dim=0) for half in rows])

    def _prepare_latents(
        self, shape: tuple[int, ...], generator: Generators, latents: torch.Tensor | None
    ) -> torch.Tensor:
        device, dtype = self._execution_device, self.transformer.dtype
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return latents.to(device, dtype) * self.scheduler.init_noise_sigma

    def _denoise(
        self,
        latents: torch.Tensor,
        embeds_RLC: torch.Tensor,
        generator: Generators,
        callback: StepCallback | None,
    ) -> torch.Tensor:
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": generator} if takes_generator else {}

        def take_step(index: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            del index
            noise = self._predict(latents, timestep, embeds_RLC)
            return self.scheduler.step(noise, timestep, latents, **options, return_dict=False)[0]

        return self._for_each_timestep(latents, take_step, callback)

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, embeds_RLC: torch.Tensor
    ) -> torch.Tensor:
        rows = torch.cat([latents, latents]) if self.do_classifier_free_guidance else latents
        rows = self.scheduler.scale_model_input(rows, timestep)
        output = self.transformer(
            rows,
            timestep=timestep.expand(len(rows)).to(rows.device),
            encoder_hidden_states=embeds_RLC,
            return_dict=False,
        )[0]
        noise = output[:, : latents.shape[1]]  # the learned variance behind it is not used
        if not self.do_classifier_free_guidance:
            return noise
        uncond, cond = noise.chunk(2)
        return uncond + self._guidance_scale * (cond - uncond)

    def _decode(self, latents: torch.Tensor, output_type: str) -> Frames:
        if output_type == "latent":
            return latents
        assert self.vae is not None, "checked"
        unscaled = (latents / self.vae.config["scaling_factor"]).to(self.vae.dtype)
        video = self.vae.decode(unscaled, return_dict=False)[0]
        return self.video_processor.postprocess_video(video.float(), output_type=output_type)
