"""Prompts of Open-Sora 1.2: clips of a long video, scores, cleaning.

Source: Open-Sora v1.2.0, `opensora/utils/inference_utils.py` and `opensora/models/text_encoder/t5.py`.

Shape suffixes: B prompts, L tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from keystep.errors import require
from keystep.models.inputs import check_embeds, checked_prompts
from keystep.models.t5 import clean

MAX_TOKENS = 300  # T5 tokens the transformer was trained with
_FIRST_CLIP = "|0|"


@dataclass(frozen=True)
class Segment:
    """The text of a prompt from one clip of a long video on."""

    clip: int
    text: str


@dataclass(frozen=True)
class Scores:
    """What is appended to a prompt, unless the prompt says it already.

    Attributes:
        aesthetic: 1 to 10, higher = prettier; None = not said.
        motion: higher = more motion; None = not said.
        camera: e.g. "pan right"; None = not said.

    Raises:
        ValueError: a score is no number, or the camera's motion no text.
    """

    aesthetic: float | None = None
    motion: float | None = None
    camera: str | None = None

    def __post_init__(self) -> None:
        for field, value in (("aesthetic_score", self.aesthetic), ("motion_score", self.motion)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            require(value is None or is_number, field, value, "a number, or None = not said")
        is_text = self.camera is None or isinstance(self.camera, str)
        require(is_text, "camera_motion", self.camera, "a text such as 'pan right', or None = not said")

    def append_to(self, text: str) -> str:
        """The text with every score it does not have yet."""
        parts = (
            ("aesthetic score:", None if self.aesthetic is None else f"{self.aesthetic:.1f}"),
            ("motion score:", None if self.motion is None else f"{self.motion:.1f}"),
            ("camera motion:", self.camera),
        )
        added = [f" {label} {value}." for label, value in parts if value is not None and label not in text]
        return text + "".join(added)


def split_clips(prompt: str) -> list[Segment]:
    """Cut "|0| a day |1| a night" into its segments; other prompts are one segment.

    Raises:
        ValueError: a prompt that starts with "|0|" but does not go on as clip numbers and texts.
    """
    if not prompt.startswith(_FIRST_CLIP):
        return [Segment(0, prompt)]
    parts = prompt.split("|")[1:]  # "", "0", text, "1", text ...
    numbers, texts = parts[0::2], parts[1::2]
    is_valid = len(numbers) == len(texts) and all(number.strip().isdigit() for number in numbers)
    require(is_valid, "prompt", prompt, "clip numbers and texts, as in '|0| a day |1| a night'")
    clips = [int(number) for number in numbers]
    is_rising = all(a < b for a, b in zip(clips, clips[1:], strict=False))
    require(is_rising, "prompt", prompt, "clip numbers that rise from |0|")
    return [Segment(clip, text.strip()) for clip, text in zip(clips, texts, strict=True)]


def join_clips(segments: Sequence[Segment]) -> str:
    """The reverse of `split_clips`; a single segment of clip 0 is its text."""
    if len(segments) == 1 and segments[0].clip == 0:
        return segments[0].text
    return "".join(f"|{segment.clip}|{segment.text}" for segment in segments)


def text_of_clip(segments: Sequence[Segment], clip: int) -> str:
    """The text in force at a clip: that of the last segment which began by then."""
    return [segment.text for segment in segments if segment.clip <= clip][-1]


def prepare_prompt(prompt: str, scores: Scores, clip: int = 0) -> str:
    """What T5 reads for a prompt at one clip of a long video: scores appended, then cleaned."""
    segments = [Segment(s.clip, clean(scores.append_to(s.text))) for s in split_clips(prompt)]
    return text_of_clip(segments, clip)


def count_prompts(
    prompt: str | list[str] | None,
    embeds_BLC: torch.Tensor | None,
    mask_BL: torch.Tensor | None,
    widths: tuple[int, int],
) -> int:
    """How many prompts there are, as texts or as embeddings.

    Args:
        prompt: one text or several; None with embeddings.
        embeds_BLC: instead of prompts.
        mask_BL: of the embeddings' tokens; None = all count.
        widths: the most tokens, and their width.

    Raises:
        ValueError: none or both of prompt and embeddings, or a wrong shape.
    """
    if embeds_BLC is None:
        require(mask_BL is None, "prompt_attention_mask", "without prompt_embeds", "both or none")
        return len(checked_prompts("prompt", prompt))
    require(prompt is None, "prompt", prompt, "None with prompt_embeds")
    length, width = widths
    check_embeds("prompt_embeds", embeds_BLC, ("prompts", f"up to {length}", width))
    num_prompts, num_tokens, _ = shape = embeds_BLC.shape
    require(num_tokens <= length, "prompt_embeds", tuple(shape), f"(prompts, up to {length}, {width})")
    if mask_BL is not None:
        check_embeds("prompt_attention_mask", mask_BL, (num_prompts, num_tokens))
    return num_prompts
