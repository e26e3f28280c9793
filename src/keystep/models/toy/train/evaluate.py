"""Measures how well generated clips show what their prompts say."""

from collections.abc import Sequence
from typing import Any

import torch

from keystep.models.toy.detector import accuracy
from keystep.models.toy.grammar import parse_prompt
from keystep.models.toy.pipeline import ToyPipeline

_CLIPS_PER_CALL = 8


def generate(
    pipe: ToyPipeline, prompts: Sequence[str], seed: int = 0, num_inference_steps: int = 30
) -> torch.Tensor:
    """One clip for each prompt; clip i starts from the noise of seed ``seed + i``, however calls are batched.

    Args:
        pipe: the pipeline.
        prompts: B prompts.
        seed: of the first clip.
        num_inference_steps: sampling steps.

    Returns:
        float32 in [0, 1], (B, frames, height, width, 3).
    """
    clips = []
    options: dict[str, Any] = {"num_inference_steps": num_inference_steps, "return_dict": False}
    for start in range(0, len(prompts), _CLIPS_PER_CALL):
        chunk = list(prompts[start : start + _CLIPS_PER_CALL])
        generators = [torch.Generator().manual_seed(seed + start + row) for row in range(len(chunk))]
        clips.append(torch.from_numpy(pipe(chunk, generator=generators, **options)[0]))
    return torch.cat(clips)


def evaluate(
    pipe: ToyPipeline, prompts: Sequence[str], seed: int = 0, num_inference_steps: int = 30
) -> dict[str, float]:
    """Share of clips that the detector reads as the prompt says, for each field and for all at once.

    Args:
        pipe: the pipeline.
        prompts: complete prompts of the grammar.
        seed: of the first clip's noise.
        num_inference_steps: sampling steps.
    """
    videos = generate(pipe, prompts, seed, num_inference_steps)
    return accuracy(list(videos), [parse_prompt(prompt) for prompt in prompts])
