"""The parts of a pipeline: each is an object, or loaded from a folder or a hub id, and may be replaced.

Loading is strict, also where diffusers and transformers would fill in random values: a weight that is
missing, extra or mis-shaped is an error that names it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from keystep.errors import require, unknown
from keystep.models.checkpoint import describe

Place = str | PathLike[str]  # a folder or a hub id
Loader = Callable[[Place, torch.dtype], Any]

AUTO = "auto"  # instead of a part: the one that the checkpoint has, or was released for
INDEX = "model_index.json"  # diffusers' list of the parts of a saved pipeline
ALLOWED = "an object, a folder or a hub id"
# Keys of whole models that text encoders are one half of, and of tables that are computed nowadays.
_OTHER_HALF = ("decoder.", "lm_head.", "vision_model.", "visual_projection.", "logit_scale")
_COMPUTED = ".position_ids"


def is_place(part: object) -> bool:
    """Whether it says where to load a part from."""
    return isinstance(part, str | PathLike)


def is_auto(part: object) -> bool:
    """Whether it is `AUTO`."""
    return isinstance(part, str) and part == AUTO


def is_saved(folder: Path) -> bool:
    """Whether `save_pretrained` of a pipeline wrote the folder."""
    return (folder / INDEX).is_file()


def saved_places(folder: Path, names: Collection[str]) -> dict[str, Path | None]:
    """The folder of each part of a saved pipeline; None = it was saved without.

    Raises:
        ValueError: the index is broken, or a folder that it names is not there.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        empty = {name for name in names if index.get(name, (None,))[0] is None}
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(f"checkpoint: {folder / INDEX} describes no pipeline: {error!r}") from None
    return {name: None if name in empty else folder / name for name in names}


def choose(given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """For each part what was given, or what the checkpoint has where `AUTO` was."""
    return {name: own.get(name) if is_auto(part) else part for name, part in given.items()}


def load_parts(
    places: Mapping[str, Any], loaders: Mapping[str, Loader], optional: Collection[str], dtype: torch.dtype
) -> dict[str, Any]:
    """Load the parts that are places, in the order of their loaders; objects and None stay what they are.

    Args:
        places: by name; has all names of `loaders`.
        loaders: by name.
        optional: names of parts that may be None.
        dtype: of all weights.

    Raises:
        ValueError: a part is needed and None, or cannot be loaded; names it.
    """
    for name in loaders:
        require(places[name] is not None or name in optional, name, None, ALLOWED)
    return {name: _load(name, places[name], load, dtype) for name, load in loaders.items()}


def load_model(cls: Any, place: Place, dtype: torch.dtype) -> Any:
    """A model of diffusers or transformers; a text encoder may come out of a whole model's weights.

    Raises:
        ValueError: not found, or missing, extra or mis-shaped keys; lists them.
    """
    try:
        model, info = cls.from_pretrained(place, dtype=dtype, output_loading_info=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"given {str(place)!r}, which cannot be loaded: {error}") from error
    extra = [
        key for key in info["unexpected_keys"] if not key.startswith(_OTHER_HALF) and _COMPUTED not in key
    ]
    problems = describe({"missing": sorted(info["missing_keys"]), "extra": sorted(extra)})
    if problems:
        raise ValueError(f"checkpoint {place} does not fit {cls.__name__}: {'; '.join(problems)}")
    return model.eval()


def load_tokenizer(place: Place, dtype: torch.dtype) -> Any:
    """A tokenizer, whose dtype means nothing; ValueError if there is none."""
    del dtype
    try:
        return AutoTokenizer.from_pretrained(place)
    except OSError as error:
        raise ValueError(f"given {str(place)!r}, which cannot be loaded: {error}") from error


def load_scheduler(own: Any, place: Place, dtype: torch.dtype) -> Any:
    """A sampler: of class `own`, or of the diffusers class that its config names.

    Raises:
        ValueError: no config, or a class that diffusers does not have.
    """
    del dtype
    import diffusers

    try:
        config = own.load_config(place)
    except OSError as error:
        raise ValueError(f"given {str(place)!r}, which cannot be loaded: {error}") from error
    name = config.get("_class_name", own.__name__)
    cls = own if name == own.__name__ else getattr(diffusers, name, None)
    require(cls is not None, "config._class_name", name, f"{own.__name__} or a scheduler of diffusers")
    return cls.from_config(config)  # type: ignore[union-attr]


def choose_dtype(dtype: object, torch_dtype: object) -> torch.dtype:
    """The one that is not None, by its new or old name; float32 without.

    Raises:
        ValueError: no dtype.
    """
    chosen = dtype or torch_dtype or torch.float32
    require(isinstance(chosen, torch.dtype), "dtype", chosen, "a torch.dtype, such as torch.bfloat16")
    assert isinstance(chosen, torch.dtype), "checked"
    return chosen


def refuse_unknown(function: Callable[..., Any], others: Mapping[str, Any]) -> None:
    """ValueError for arguments that a `from_pretrained` does not have; lists those it has."""
    known = [p.name for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY]
    for name in others:
        raise unknown("argument of from_pretrained", name, known)


def _load(name: str, place: Any, load: Loader, dtype: torch.dtype) -> Any:
    if not is_place(place):
        return place
    try:
        return load(place, dtype)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
