"""The models that have names: which pipeline class loads them, from where, and what is known of them.

Importing this module imports no model: classes are looked up when they are asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

INDEX = "model_index.json"  # diffusers' description of a saved pipeline


@dataclass(frozen=True)
class NamedModel:
    """A model with a name.

    Attributes:
        pipeline: `module:class` of its pipeline, which has `from_pretrained`.
        checkpoint: hub id of the released weights; empty = they ship with keystep.
        spec: name of its `ModelSpec`.
        fps: frames per second of its videos.
        about: what it is, in a line.
    """

    pipeline: str
    checkpoint: str
    spec: str
    fps: int
    about: str


TOY = "toy"
CATALOGUE: dict[str, NamedModel] = {
    TOY: NamedModel("keystep.models.toy:ToyPipeline", "", "toy", 8, "the toy model: 16 frames of 64 x 64"),
    "toy-flow": NamedModel(
        "keystep.models.toy:ToyFlowPipeline", "", "toy-flow", 8,
        "a second toy model: the same clips from Wan's architecture",
    ),
    "opensora-1.2": NamedModel(
        "keystep.models.opensora.pipeline:OpenSoraPipeline", "hpcai-tech/OpenSora-STDiT-v3", "opensora", 24,
        "Open-Sora 1.2: 144p to 720p, 2 to 16 s",
    ),
    "opensora-plan-1.1": NamedModel(
        "keystep.models.opensora_plan.pipeline:OpenSoraPlanPipeline", "LanguageBind/Open-Sora-Plan-v1.1.0",
        "opensora-plan", 24, "Open-Sora-Plan 1.1: 65 or 221 frames of 512 x 512",
    ),
    "vchitect-2.0": NamedModel(
        "keystep.models.vchitect.pipeline:VchitectPipeline", "Vchitect/Vchitect-2.0-2B", "vchitect", 8,
        "Vchitect 2.0: 40 frames of 432 x 768",
    ),
    "latte": NamedModel(
        "diffusers:LattePipeline", "maxin-cn/Latte-1", "latte", 8, "Latte 1: 16 frames of 512 x 512",
    ),
    "cogvideox-2b": NamedModel(
        "diffusers:CogVideoXPipeline", "THUDM/CogVideoX-2b", "cogvideox", 8,
        "CogVideoX 2B: 49 frames of 480 x 720",
    ),
    "cogvideox-5b": NamedModel(
        "diffusers:CogVideoXPipeline", "THUDM/CogVideoX-5b", "cogvideox", 8,
        "CogVideoX 5B: 49 frames of 480 x 720",
    ),
    "wan-2.1-1.3b": NamedModel(
        "diffusers:WanPipeline", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "wan", 16,
        "Wan 2.1, 1.3B: 81 frames of 480 x 832",
    ),
    "wan-2.1-14b": NamedModel(
        "diffusers:WanPipeline", "Wan-AI/Wan2.1-T2V-14B-Diffusers", "wan", 16,
        "Wan 2.1, 14B: 81 frames of 480 x 832 or 720 x 1280",
    ),
}  # fmt: skip


def find_model(model: str) -> NamedModel | None:
    """The entry of a name or of a released checkpoint's hub id; None for anything else."""
    if model in CATALOGUE:
        return CATALOGUE[model]
    return next((entry for entry in CATALOGUE.values() if entry.checkpoint == model != ""), None)


def find_pipeline(model: str) -> Any:
    """The pipeline class of a name, a hub id of the catalogue or a saved pipeline's folder.

    Returns:
        The class; None where only loading tells (other hub ids, folders with a class nobody here knows).

    Raises:
        ValueError: the folder's `model_index.json` is broken.
    """
    entry = find_model(model)
    if entry is not None:
        return import_name(entry.pipeline)
    index = Path(model) / INDEX
    if not index.is_file():
        return None
    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"model: {index} describes no diffusers pipeline: {error!r}") from None
    ours = {entry.pipeline.partition(":")[2]: entry.pipeline for entry in CATALOGUE.values()}
    if name in ours:
        return import_name(ours[name])
    import diffusers

    return getattr(diffusers, name, None)


def import_name(path: str) -> Any:
    """The object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
