"""Text to video with Vchitect-2.0, as an ordinary diffusers pipeline.

Shape suffixes: B videos, F frames, C latent channels, Y/X latent grid.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import randn_tensor
from transformers import CLIPTextModelWithProjection, PreTrainedTokenizerBase, T5EncoderModel

from keystep.errors import require
from keystep.models import inputs
from keystep.models.parts import AUTO, Place, choose_dtype, refuse_unknown
from keystep.models.t5 import tokenize
from keystep.models.vchitect import loading, sizes
from keystep.models.vchitect.guidance import guidance_weight
from keystep.models.vchitect.output import decode
from keystep.models.vchitect.text import (
    CLIP_TOKENS,
    T5_TOKENS,
    Embedding,
    checked_text,
    embed_tokens,
)
from keystep.models.vchitect.transformer import VchitectTransformer3DModel
from keystep.models.video_pipeline import Frames, Generators, StepCallback, VideoPipeline, VideoPipelineOutput

VAE_SCALE = 8  # pixels per latent


class VchitectPipeline(VideoPipeline):
    """Makes videos of 8 frames per second from prompts.

    With guidance on, every evaluation is two calls of the transformer, also where the weight is 1 and one
    would do. The conditional call is the first (in the reference the second; neither needs the other).

    Args:
        transformer: predicts the flow-matching velocity of the latents.
        scheduler: flow-match Euler.
        vae: Stable Diffusion 3's, frame by frame.
        text_encoder: CLIP-L.
        text_encoder_2: CLIP-G.
        text_encoder_3: T5.
        tokenizer: of `text_encoder`.
        tokenizer_2: of `text_encoder_2`.
        tokenizer_3: of `text_encoder_3`.
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->transformer->vae"
    _optional_components = list(loading.OPTIONAL)

    transformer: VchitectTransformer3DModel
    scheduler: Any
    vae: Any

    def __init__(
        self,
        transformer: VchitectTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL | None,
        text_encoder: CLIPTextModelWithProjection | None,
        text_encoder_2: CLIPTextModelWithProjection | None,
        text_encoder_3: T5EncoderModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        tokenizer_2: PreTrainedTokenizerBase | None,
        tokenizer_3: PreTrainedTokenizerBase | None,
    ) -> None:
        super().__init__(
            transformer=transformer,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            text_encoder_2=text_encoder_2,
            text_encoder_3=text_encoder_3,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            tokenizer_3=tokenizer_3,
        )

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Place,
        *,
        transformer: Any = AUTO,
        scheduler: Any = AUTO,
        vae: Any = AUTO,
        text_encoder: Any = AUTO,
        text_encoder_2: Any = AUTO,
        text_encoder_3: Any = AUTO,
        tokenizer: Any = AUTO,
        tokenizer_2: Any = AUTO,
        tokenizer_3: Any = AUTO,
        dtype: torch.dtype | None = None,
        torch_dtype: torch.dtype | None = None,
        **others: Any,
    ) -> VchitectPipeline:
        """Load the released layout (a subfolder for each part), or what `save_pretrained` wrote.

        Args:
            pretrained_model_name_or_path: folder, or hub id such as `Vchitect/Vchitect-2.0-2B`.
            transformer, scheduler: folder, hub id or object instead of the one there.
            vae: likewise; None = none, for latents only.
            text_encoder, text_encoder_2, text_encoder_3: likewise; None = none, for calls with embeddings.
            tokenizer, tokenizer_2, tokenizer_3: likewise.
            dtype: of all weights; None = float32.
            torch_dtype: the same by its older name.
            others: refused; there are no further options.

        Raises:
            ValueError: something is missing, unknown, or does not fit; lists what.
        """
        refuse_unknown(VchitectPipeline.from_pretrained, others)
        given = {
            "transformer": transformer,
            "scheduler": scheduler,
            "vae": vae,
            "text_encoder": text_encoder,
            "text_encoder_2": text_encoder_2,
            "text_encoder_3": text_encoder_3,
            "tokenizer": tokenizer,
            "tokenizer_2": tokenizer_2,
            "tokenizer_3": tokenizer_3,
        }
        chosen = choose_dtype(dtype, torch_dtype)
        return cls(**loading.load_pipeline(pretrained_model_name_or_path, given, chosen))

    size_arguments = staticmethod(sizes.size_arguments)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        height: int = sizes.HEIGHT,
        width: int = sizes.WIDTH,
        num_frames: int = sizes.NUM_FRAMES,
        num_inference_steps: int = 100,
        guidance_scale: float = 7.5,
        num_videos_per_prompt: int = 1,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        decode_chunk_size: int = 8,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
    ) -> VideoPipelineOutput | tuple[Frames]:
        """Generate videos.

        Args:
            prompt: one text or several; what is beyond 77 tokens for CLIP and 256 for T5 is cut, with a
                warning.
            negative_prompt: what guidance moves away from; None is the empty prompt.
            height: in pixels, a multiple of 16. `size_arguments` knows the sizes the authors list.
            width: likewise.
            num_frames: 8 make a second.
            num_inference_steps: sampling steps; higher = finer, slower.
            guidance_scale: above 1 switches guidance on; its weight is between 1 and 1 + this, see
                `guidance_weight`.
            num_videos_per_prompt: videos of each prompt, next to each other in the output.
            generator: source of the starting noise; the same one gives the same video.
            latents: the starting noise itself, (B, F, C, Y, X).
            prompt_embeds: embeddings (prompts, tokens, width) in place of `prompt`.
            pooled_prompt_embeds: (prompts, width), with `prompt_embeds`.
            negative_prompt_embeds, negative_pooled_prompt_embeds: likewise, in place of `negative_prompt`.
            decode_chunk_size: frames decoded at a time; higher = more memory.
            output_type: ``np``, ``pt``, ``pil`` or ``latent``; see `VideoPipelineOutput`.
            return_dict: False gives a plain tuple.
            callback_on_step_end: called as ``callback(pipe, step, timestep, tensors)`` after every step;
                ``latents`` in the dictionary it returns replace those of the pipeline.
            callback_on_step_end_tensor_inputs: which tensors it gets; only ``latents`` exists.

        Raises:
            ValueError: an argument is out of range; the message names it, its value and what is allowed.

        Warns:
            PromptTruncatedWarning: a prompt is longer than an encoder reads; says what was cut.
            UserWarning: a negative prompt without guidance.
        """
        config = self.transformer.config
        widths = config["joint_attention_dim"], config["pooled_projection_dim"]
        text = checked_text("prompt", prompt, prompt_embeds, pooled_prompt_embeds, widths)
        num_prompts = len(text)
        if negative_prompt is None and negative_prompt_embeds is None:
            negative_prompt = ""
        negative_text = checked_text(
            "negative_prompt",
            negative_prompt,
            negative_prompt_embeds,
            negative_pooled_prompt_embeds,
            widths,
            num_prompts,
        )
        self._check_size(height, width)
        inputs.check_sampling(num_inference_steps, num_videos_per_prompt, guidance_scale, output_type)
        inputs.warn_unless_guided(negative_prompt, guidance_scale)
        inputs.check_count("num_frames", num_frames)
        inputs.check_count("decode_chunk_size", decode_chunk_size)
        has_frames = output_type == "latent" or self.vae is not None
        require(has_frames, "output_type", output_type, "'latent': the pipeline has no vae")
        inputs.check_callback_inputs(callback_on_step_end_tensor_inputs, self._callback_tensor_inputs)
        num_videos = num_prompts * num_videos_per_prompt
        inputs.check_generator(generator, num_videos)
        shape = (num_videos, num_frames, config["in_channels"], height // VAE_SCALE, width // VAE_SCALE)
        inputs.check_latents(latents, shape)

        self._guidance_scale = guidance_scale
        self._interrupt = False
        embeds = [self._embed(text).repeat(num_videos_per_prompt)]
        if self.do_classifier_free_guidance:
            embeds.append(self._embed(negative_text, "negative_prompt").repeat(num_videos_per_prompt))
        sample = self._prepare_latents(shape, generator, latents)
        sample = self._denoise(sample, embeds, num_inference_steps, callback_on_step_end)
        frames: Frames = sample
        if output_type != "latent":
            video = decode(self.vae, sample, decode_chunk_size)
            frames = self.video_processor.postprocess_video(video, output_type=output_type)
        self.maybe_free_model_hooks()
        return VideoPipelineOutput(frames=frames) if return_dict else (frames,)

    def _check_size(self, height: int, width: int) -> None:
        config = self.transformer.config
        largest = VAE_SCALE * config["patch_size"] * config["pos_embed_max_size"]
        for name, value in (("height", height), ("width", width)):
            sizes.require_size(name, value)
            require(value <= largest, name, value, f"up to {largest}, where the model's positions end")

    def _embed(self, text: list[str] | Embedding, field: str = "prompt") -> Embedding:
        device, dtype = self._execution_device, self.transformer.dtype
        if isinstance(text, Embedding):
            return text.to(device, dtype)
        parts: Any = self.components
        names = loading.ENCODERS
        missing = [name for name in (*names, *loading.TOKENIZERS) if parts[name] is None]
        require(not missing, field, text, f"only {field}_embeds: the pipeline has no {', '.join(missing)}")
        limits = zip(loading.TOKENIZERS, (CLIP_TOKENS, CLIP_TOKENS, T5_TOKENS), strict=True)
        ids = [
            tokenize(parts[tokenizer], text, limit, field, name)[0].to(device)
            for name, (tokenizer, limit) in zip(names, limits, strict=True)
        ]
        return embed_tokens([parts[name] for name in names], ids).to(device, dtype)

    def _prepare_latents(
        self,
        shape: tuple[int, ...],
        generator: Generators,
        latents: torch.Tensor | None,
    ) -> torch.Tensor:
        device, dtype = self._execution_device, self.transformer.dtype
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        assert latents is not None, "randn_tensor is annotated more loosely than it is"
        return latents.to(device, dtype)

    def _denoise(
        self,
        sample: torch.Tensor,
        embeds: list[Embedding],
        num_steps: int,
        callback: StepCallback | None,
    ) -> torch.Tensor:
        self.scheduler.set_timesteps(num_steps, device=self._execution_device)
        times = self.scheduler.timesteps.tolist()
        weights = [guidance_weight(self._guidance_scale, time, num_steps) for time in times]

        def take_step(index: int, timestep: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
            velocity = self._predict(latents, timestep, embeds, weights[index])
            return self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]

        return self._for_each_timestep(sample, take_step, callback)

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, embeds: list[Embedding], weight: float
    ) -> torch.Tensor:
        """The guided velocity: a call for each branch, the conditional one first."""
        cond, *others = (
            self.transformer(
                latents,
                timestep=timestep.expand(len(latents)),
                encoder_hidden_states=embed.tokens,
                pooled_projections=embed.pooled,
                return_dict=False,
            )[0]
            for embed in embeds
        )
        if not others:
            return cond
        (uncond,) = others
        return uncond + weight * (cond - uncond)
