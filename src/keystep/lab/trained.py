"""Models with weights as subjects: those that ship with keystep, and any other by name, folder or hub id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from keystep.lab.contestant import QUALITY, ROBUSTNESS, SPEED, Subject
from keystep.models.catalogue import CATALOGUE
from keystep.models.toy.detector import detect
from keystep.models.toy.grammar import development_prompts, held_out_prompts, parse_prompt

NUM_PROMPTS = 32  # held out, for published figures
TOY_STEPS = 30
OTHER_STEPS = 50
PARTS = (QUALITY, SPEED, ROBUSTNESS)


def shipped_models() -> tuple[str, ...]:
    """Names of the catalogue whose weights are in the package."""
    return tuple(name for name, entry in CATALOGUE.items() if not entry.checkpoint)


def shipped_subject(name: str, load: Callable[[], Any]) -> Subject:
    """A model that ships, on its held-out prompts, read by its detector."""
    return Subject(
        name=name,
        load=load,
        call=_call,
        prompts=tuple(held_out_prompts(NUM_PROMPTS)),
        development_prompts=tuple(development_prompts(NUM_PROMPTS)),
        num_steps=TOY_STEPS,
        parts=(QUALITY, ROBUSTNESS),  # so small a model's time says little of others
        read=read_scene,
        fps=float(CATALOGUE[name].fps),
    )


def other_subject(name: str, load: Callable[[], Any], prompts: Sequence[str], fps: float) -> Subject:
    """Any pipeline, on a user's prompts; the last one is spent on calibrations and not measured."""
    *measured, spent = prompts
    return Subject(name, load, _call, tuple(measured), (spent,), OTHER_STEPS, PARTS, fps=fps)


def read_scene(video: Any, prompt: str) -> dict[str, bool]:
    """What the detector finds right in a video of the toys' grammar."""
    return detect(torch.as_tensor(video)).matches(parse_prompt(prompt))


def _call(prompt: str, seed: int, num_steps: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "num_inference_steps": num_steps,
        "generator": torch.Generator("cpu").manual_seed(seed),
        "output_type": "np",
    }
