"""Load a pipeline for the command line and find out which arguments its call takes."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from keystep.cli.method_options import parse_assignments
from keystep.cli.options import DEFAULT_FPS, Dtype
from keystep.errors import unknown
from keystep.models.catalogue import CATALOGUE, INDEX, TOY, find_model, find_pipeline

NOTHING: Mapping[str, Any] = MappingProxyType({})
# What --load sets for diffusers' own pipelines, and what has options of its own.
DIFFUSERS_OPTIONS = ("revision", "variant")
LOADED_OTHERWISE = ("dtype", "torch_dtype")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Our words -> names that pipelines use for them, in order of preference.
ARGUMENT_NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt",),
    "negative-prompt": ("negative_prompt",),
    "steps": ("num_inference_steps",),
    "guidance": ("guidance_scale",),
    "frames": ("num_frames", "video_length"),
    "height": ("height",),
    "width": ("width",),
}
# Our words -> arguments of `size_arguments`, which pipelines with named sizes have.
SIZE_NAMES: dict[str, str] = {
    "resolution": "resolution",
    "aspect": "aspect",
    "seconds": "seconds",
    "frames": "num_frames",
    "height": "height",
    "width": "width",
}


def check_model(model: str) -> None:
    """Refuse what can be no model, without touching network or weights.

    Raises:
        ValueError: neither a name, nor a pipeline's folder, nor of the form of a hub id.
    """
    if model in CATALOGUE:
        return
    path = Path(model)
    if path.is_dir():
        if not (path / INDEX).is_file():
            raise ValueError(
                f"--model: the folder {model} holds no pipeline: {INDEX} is missing; released weights of "
                "another layout go with the model's name: --model NAME --load source=FOLDER"
            )
        return
    if not HUB_ID.fullmatch(model):
        near = difflib.get_close_matches(model, CATALOGUE)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        allowed = f"a name ({', '.join(CATALOGUE)}), a pipeline's folder, or a hub id like THUDM/CogVideoX-2b"
        raise ValueError(f"--model: given {model!r}{hint}, allowed: {allowed}")


def check_device(device: str) -> None:
    """Refuse a device that torch does not see.

    Raises:
        ValueError: with the devices there are.
    """
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    known = {"cpu"} | ({kind.type} if kind is not None else set())
    if device.split(":")[0] not in known:
        raise ValueError(f"--device: given {device!r}, here are: {', '.join(sorted(known))}")


def fit_arguments(pipeline: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Translate our words into the arguments of a pipeline's call.

    Args:
        pipeline: the pipeline's class.
        given: values by our words (keys of `ARGUMENT_NAMES` and `SIZE_NAMES`); None = not given, the
            pipeline's default stays.

    Raises:
        ValueError: something was given that this pipeline does not take, or no size of the model.
    """
    words = {word: value for word, value in given.items() if value is not None}
    fitted = fit_size(pipeline, words)
    # Only named parameters count: what lands in a pipeline's **kwargs is mostly ignored in silence.
    parameters = inspect.signature(pipeline.__call__).parameters
    for word in [word for word in words if word not in SIZE_NAMES or not fitted]:
        names = [name for name in ARGUMENT_NAMES[word] if name in parameters]
        if not names:
            accepted = [w for w, all_names in ARGUMENT_NAMES.items() if set(all_names) & set(parameters)]
            raise ValueError(
                f"--{word}: {pipeline.__name__} does not take it; it takes "
                f"{', '.join('--' + w for w in accepted)}"
            )
        fitted[names[0]] = words[word]
    return fitted


def fit_size(pipeline: type, words: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments for the size, where the pipeline has named sizes and one is given; else empty.

    Raises:
        ValueError: no size of the model, or a named one for a pipeline that has none.
    """
    sizes = {argument: words.get(word) for word, argument in SIZE_NAMES.items()}
    find_arguments = getattr(pipeline, "size_arguments", None)
    if find_arguments is not None and any(value is not None for value in sizes.values()):
        return find_arguments(**sizes)
    named = [word for word in words if word in SIZE_NAMES and word not in ARGUMENT_NAMES]
    if named:
        raise ValueError(
            f"--{named[0]}: {pipeline.__name__} has no named sizes; give --height, --width and --frames"
        )
    return {}


def check_words(model: str, given: Mapping[str, Any]) -> None:
    """`fit_arguments` before loading, where the pipeline's class is known by then.

    Raises:
        ValueError: as there.
    """
    pipeline = find_pipeline(model)
    if pipeline is not None:
        fit_arguments(pipeline, given)


def read_load_options(
    model: str, assignments: Sequence[str], words: Mapping[str, Any] = NOTHING
) -> dict[str, Any]:
    """The `--load` texts as keyword arguments of `keystep.load`, and what the size of the video asks for.

    Args:
        model: of `keystep.load`.
        assignments: the texts.
        words: values by our words, see `fit_arguments`; a released model may have a checkpoint for each
            length.

    Raises:
        ValueError: a text is no assignment, the model's `from_pretrained` has no such argument, or the
            checkpoint is of another length than the video.
    """
    loading = parse_assignments(assignments, "--load")
    pipeline = find_pipeline(model) if loading or words else None
    own: list[str] = []
    if pipeline is not None:
        _, *parameters = inspect.signature(pipeline.from_pretrained).parameters.values()
        named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        own = [name for name in named if name not in LOADED_OTHERWISE]
    known = [*(["source"] if model in CATALOGUE else []), *(own or DIFFUSERS_OPTIONS)]
    for key in loading:
        if key not in known:
            raise unknown(f"--load option of {model}", key, known)
    find_arguments = getattr(pipeline, "load_arguments", None)
    if pipeline is None or find_arguments is None or _is_saved(model, loading):
        return loading
    return loading | find_arguments(fit_arguments(pipeline, words), loading)


def _is_saved(model: str, loading: Mapping[str, Any]) -> bool:
    """Whether a folder with a saved pipeline is loaded, not released weights."""
    return find_model(model) is None or (Path(str(loading.get("source", ""))) / INDEX).is_file()


def choose_fps(model: str, fps: float | None) -> float:
    """Frames per second of the files: as given, else the model's own where it is known."""
    entry = find_model(model)
    return fps or (DEFAULT_FPS if entry is None else float(entry.fps))


def check_methods(pipe: Any, methods: Iterable[Any]) -> None:
    """Attach every method once and take it off again, so that none fails after others ran for hours.

    Raises:
        ValueError: a method does not fit the pipeline.
    """
    import keystep

    for method in methods:
        with keystep.accelerate(pipe, method):
            pass


def offloading(is_wanted: bool) -> dict[str, Any]:
    """The argument of `keystep.load` for `--offload`."""
    return {"offload": True} if is_wanted else {}


def load_pipeline(model: str, dtype: Dtype, device: str, loading: Mapping[str, Any] = NOTHING) -> Any:
    """Load a pipeline, its own progress bars switched off.

    Args:
        model: of `keystep.load`.
        dtype: of the weights.
        device: where it runs.
        loading: further arguments of `keystep.load`.

    Raises:
        ValueError: it is no pipeline that keystep can load.
        OSError: files are missing or unreadable.
    """
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    import keystep

    if model == TOY:  # loads in an instant; the bars of larger ones are welcome
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
    pipe = keystep.load(model, dtype=getattr(torch, dtype.value), device=device, **loading)
    pipe.set_progress_bar_config(disable=True)
    return pipe
