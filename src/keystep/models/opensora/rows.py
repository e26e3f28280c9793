"""What a transformer call gets beside latents and timestep: rows of text and numbers.

Shape suffixes: B prompts, R rows, L tokens, D text width.
"""

from __future__ import annotations

import torch
from accelerate.utils import align_module_device

from keystep.models import t5
from keystep.models.opensora.sizes import IMAGE_FPS
from keystep.models.opensora.transformer import STDiT3


def make_rows(
    transformer: STDiT3,
    embeds_BLD: torch.Tensor,
    mask_BL: torch.Tensor | None,
    num_videos_per_prompt: int,
    is_guided: bool,
    numbers: dict[str, float],
    device: torch.device,
) -> dict[str, torch.Tensor | None]:
    """Arguments of a call: R rows, those of the videos and, with guidance, as many of the learned empty text.

    That text is cut to the prompt's tokens, as it was whenever the released model was sampled from. No text
    keeps padding that all rows have.

    Args:
        transformer: has the learned text, and the dtype.
        embeds_BLD: of the prompts.
        mask_BL: nonzero where they count; None = everywhere.
        num_videos_per_prompt: rows of each prompt, next to each other.
        is_guided: whether there is an unconditional half.
        numbers: fps, height and width.
        device: of the result.
    """
    dtype = transformer.dtype
    mask = torch.ones(embeds_BLD.shape[:2]) if mask_BL is None else mask_BL
    embeds = embeds_BLD.to(device, dtype).repeat_interleave(num_videos_per_prompt, dim=0)
    mask = mask.to(device, torch.bool).repeat_interleave(num_videos_per_prompt, dim=0)
    if is_guided:
        embedder = transformer.y_embedder
        with align_module_device(embedder):  # it may be offloaded
            null = embedder.y_embedding[: embeds.shape[1]].to(device, dtype, copy=True)
        embeds, mask = torch.cat([embeds, null.expand_as(embeds)]), torch.cat([mask, mask])
    embeds, used = t5.drop_padding(embeds, mask)
    rows = {name: embeds.new_full((len(embeds),), value) for name, value in numbers.items()}
    return {"encoder_hidden_states": embeds, "encoder_attention_mask": used, **rows}


def describe_video(fps: float, size: dict[str, int]) -> dict[str, float]:
    """The numbers that the model is told: an image has a frame rate of its own."""
    fps = IMAGE_FPS if size["num_frames"] == 1 else fps
    return {"fps": fps, "height": size["height"], "width": size["width"]}
