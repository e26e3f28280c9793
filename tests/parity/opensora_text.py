"""Open-Sora's conventions without a network: `text_pairs.json`, `mask_strategy.json`,
`resolutions_frames.json`, `text_conventions.json`. Every entry counts, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keystep.models import t5
from keystep.models.opensora import conditions, sizes, text

from .folder import read_json
from .report import Case, Result

Compare = Callable[[Any], Iterator[bool]]


def find(folder: Path, label: str) -> Iterator[Case]:
    """The text files of a folder."""
    for stem, compare in COMPARISONS.items():
        path = folder / f"{stem}.json"
        if path.exists():
            yield Case(label + stem, path, partial(run, compare))


def run(compare: Compare, name: str, path: Path) -> Iterator[Result]:
    """One result per file: how many of its entries differ."""
    equal = list(compare(read_json(path)))
    yield Result(name, float(equal.count(False)) if equal else float("nan"), note=f"{len(equal)} entries")


def prompts(pairs: Any) -> Iterator[bool]:
    """Segments, scores, cleaning and joining of prompts."""
    for pair in pairs:
        given = pair["scores"]
        scores = text.Scores(given.get("aes"), given.get("flow"), given.get("camera_motion"))
        segments = text.split_clips(pair["prompt"])
        scored = [scores.append_to(segment.text) for segment in segments]
        cleaned = [text.Segment(s.clip, t5.clean(part)) for s, part in zip(segments, scored, strict=True)]
        yield [segment.text for segment in segments] == pair["segments"]
        yield [segment.clip for segment in segments] == (pair["loop_index"] or [0])
        yield scored == pair["with_scores"]
        yield [segment.text for segment in cleaned] == pair["cleaned_segments"]
        yield text.join_clips(cleaned) == pair["merged"]
        yield text.prepare_prompt(pair["prompt"], scores) == pair["for_loop_0"]


def strategies(content: Any) -> Iterator[bool]:
    """Mask strategies: what they say, the mask, and which reference frame went where."""
    for case in content["cases"]:
        strategy, available = case["mask_strategy"], case["ref_latent_frames"]
        references = [
            (100 * index + 1.0 + torch.arange(frames)).reshape(1, -1, 1, 1)
            for index, frames in enumerate(available)
        ]
        noise = torch.zeros(1, 1, case["latent_frames"], 1, 1)
        clip, chunk = case["loop_i"], case["align"]
        placed = conditions.place(strategy, available, noise.shape[2], clip=clip, chunk=chunk)
        latents, mask = conditions.apply(noise, [references], [placed])
        yield [list(astuple(c)) for c in conditions.parse(strategy)] == case["parsed"]
        yield mask[0].tolist() == case["mask"]
        yield latents.flatten().tolist() == case["z_after"]


def tables(content: Any) -> Iterator[bool]:
    """Every size and duration, by ratio and by name."""
    for resolution, table in content["resolutions"].items():
        for ratio, size in table["by_ratio_key"].items():
            yield size_or_none(resolution, ratio) == size
        for name, size in table["by_name"].items():
            yield size_or_none(resolution, name) == size
    for name, ratio in content["aspect_ratio_map"].items():
        yield sizes.RATIO_OF_NAME.get(name) == ratio
    for name, frames in content["num_frames_map"].items():
        yield sizes.frames_of(name) == frames
    yield content["image_fps"] == sizes.IMAGE_FPS


def size_or_none(resolution: str, aspect: str) -> list[int] | None:
    """[height, width], None where the tables have none."""
    try:
        return list(sizes.size_of(resolution, aspect))
    except ValueError:
        return None


def constants(content: Any) -> Iterator[bool]:
    """Length of the text, and how scores are written."""
    yield content["max_length"] == text.MAX_TOKENS
    formats = content["score_formats"]
    yield text.Scores(aesthetic=6.5).append_to("") == formats["aes"].format(aes=6.5)
    yield text.Scores(motion=4).append_to("") == formats["flow"].format(flow=4.0)
    yield text.Scores(camera="tilt").append_to("") == formats["camera_motion"].format(camera_motion="tilt")


COMPARISONS: dict[str, Compare] = {
    "text_pairs": prompts,
    "mask_strategy": strategies,
    "resolutions_frames": tables,
    "text_conventions": constants,
}
