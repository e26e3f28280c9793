"""Which latent frames of a video are given, not sampled: mask strategies such as "0" or "0,0,-5,0,5,0.3".

A strategy is a list of conditions, separated by ";". Each is up to six numbers, separated by ",": the clip of
a long video that it holds for, which reference, the reference's first latent frame, the latent frame it goes
to (negative = from the end), how many latent frames, and the edit ratio. What is missing is 0, 0, 0, 0, 1, 0.

Source: Open-Sora v1.2.0, `opensora/utils/inference_utils.py`, `apply_mask_strategy`.

Shape suffixes: B videos, C latent channels, T latent frames, H/W latent grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace

import torch

from keystep.errors import require

CHUNK = 5  # latent frames that the autoencoder makes at a time, independently of the others


@dataclass(frozen=True)
class Condition:
    """Latent frames of a reference, put into those of a video.

    Attributes:
        clip: clip of a long video that this holds for.
        reference: index of the reference.
        reference_start: first latent frame taken from it; negative = from its end.
        target_start: latent frame of the video it goes to; negative = from its end.
        length: latent frames taken; fewer where the reference or the video ends.
        edit_ratio: 0 = kept as it is, 0.3 = sampled from 30 % of the noise on; below 1.
    """

    clip: int = 0
    reference: int = 0
    reference_start: int = 0
    target_start: int = 0
    length: int = 1
    edit_ratio: float = 0.0

    def __str__(self) -> str:
        return ",".join(str(value) for value in astuple(self))


def parse(strategy: str) -> list[Condition]:
    """The conditions of a mask strategy; an empty one has none.

    Raises:
        ValueError: not numbers, too many of them, or a value out of its range.
    """
    return [_parse_one(text) for text in strategy.split(";") if text.strip()]


def _parse_one(text: str) -> Condition:
    numbers, names = text.split(","), [field.name for field in fields(Condition)]
    allowed = f"up to {len(names)} numbers: {', '.join(names)}"
    require(len(numbers) <= len(names), "mask_strategy", text, allowed)
    try:
        values = [
            float(n) if name == "edit_ratio" else int(n) for name, n in zip(names, numbers, strict=False)
        ]
    except ValueError:
        raise ValueError(f"mask_strategy: given {text!r}, allowed: {allowed}") from None
    condition = Condition(*values)  # type: ignore[arg-type]  # whole numbers but for the last
    for name in ("clip", "reference"):
        require(
            getattr(condition, name) >= 0, f"mask_strategy {text!r}: {name}", getattr(condition, name), ">= 0"
        )
    require(condition.length >= 1, f"mask_strategy {text!r}: length", condition.length, ">= 1")
    check_edit_ratio(condition.edit_ratio, f"mask_strategy {text!r}: edit_ratio")
    return condition


def check_edit_ratio(ratio: float, field: str = "edit_ratio") -> None:
    """ValueError unless it is from 0 to below 1; at 1 nothing of the reference would be left."""
    require(0 <= ratio < 1, field, ratio, "0 (kept as it is) to below 1 (the more, the freer)")


def nearest_chunk(frame: int, num_frames: int, chunk: int = CHUNK) -> int:
    """The chunk start nearest to a latent frame (the earlier one if in the middle) among those of a video."""
    index, rest = divmod(frame, chunk)
    if rest > chunk / 2 and index < num_frames // chunk - 1:
        index += 1
    return index * chunk


def place(
    strategy: str,
    reference_frames: Sequence[int],
    num_frames: int,
    *,
    clip: int = 0,
    chunk: int | None = CHUNK,
    field: str = "mask_strategy",
) -> list[Condition]:
    """The conditions of a strategy that hold for a clip, with the frames they really take.

    Args:
        strategy: see the top of this file.
        reference_frames: latent frames of each reference.
        num_frames: latent frames of the video.
        clip: which clip of a long video this is; conditions of others are left out.
        chunk: starts are moved to multiples of this many latent frames; None = taken as they are.
        field: the argument that the strategy is from, for messages.

    Returns:
        Conditions with starts from 0 and lengths that fit.

    Raises:
        ValueError: a condition names a reference or frames that are not there (says which are), or no frame
            is left to sample.
    """
    field, placed = f"{field} {strategy!r}" if field == "mask_strategy" else field, []
    for condition in parse(strategy):
        if condition.clip != clip:
            continue
        index = condition.reference
        require(
            index < len(reference_frames), f"{field}: reference", index, f"one of {len(reference_frames)}"
        )
        available = reference_frames[index]
        start = _start(condition.reference_start, available, chunk, f"{field}: reference_start")
        target = _start(condition.target_start, num_frames, chunk, f"{field}: target_start")
        length = min(condition.length, num_frames - target, available - start)
        placed.append(replace(condition, reference_start=start, target_start=target, length=length))
    kept = {c.target_start + i for c in placed if c.edit_ratio == 0 for i in range(c.length)}
    require(len(kept) < num_frames, field, f"all {num_frames} latent frames kept", "one left to sample")
    return placed


def apply(
    latents_BCTHW: torch.Tensor,
    references: Sequence[Sequence[torch.Tensor]],
    placed: Sequence[Sequence[Condition]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put reference frames into the starting noise.

    Args:
        latents_BCTHW: starting noise; not changed.
        references: for every video its references, each (C, T, H, W).
        placed: for every video its conditions, from `place`.

    Returns:
        The latents, and the mask (B, T), float32: 1 = sampled, 0 = kept, between = the edit ratio.
    """
    latents_BCTHW = latents_BCTHW.clone()
    mask_BT = torch.ones(len(latents_BCTHW), latents_BCTHW.shape[2], device=latents_BCTHW.device)
    for row, (given, of_row) in enumerate(zip(references, placed, strict=True)):
        for condition in of_row:
            start, target, length = condition.reference_start, condition.target_start, condition.length
            frames = given[condition.reference][:, start : start + length]
            latents_BCTHW[row, :, target : target + length] = frames
            mask_BT[row, target : target + length] = condition.edit_ratio
    return latents_BCTHW, mask_BT


def _start(given: int, num_frames: int, chunk: int | None, field: str) -> int:
    require(-num_frames <= given < num_frames, field, given, f"a frame of {num_frames} latent ones")
    frame = given % num_frames
    return frame if chunk is None else nearest_chunk(frame, num_frames, chunk)
