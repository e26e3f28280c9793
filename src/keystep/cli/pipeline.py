"""Load a pipeline for the command line and find out which arguments its call takes."""

from __future__ import annotations

import difflib
import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from keystep.cli.options import Dtype

TOY = "toy"
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


def check_model(model: str) -> None:
    """Refuse what can be no model, without touching network or weights.

    Raises:
        ValueError: neither `toy`, nor a pipeline's folder, nor of the form of a hub id.
    """
    if model == TOY:
        return
    path = Path(model)
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise ValueError(f"--model: the folder {model} holds no pipeline: model_index.json is missing")
        return
    if not HUB_ID.fullmatch(model):
        near = difflib.get_close_matches(model, [TOY])
        hint = f"; did you mean {near[0]}?" if near else ""
        allowed = "'toy', a pipeline's folder, or a hub id like THUDM/CogVideoX-2b"
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


def find_call(model: str) -> Callable[..., Any] | None:
    """The `__call__` of the model's pipeline class where it is known before loading; None for hub ids."""
    if model == TOY:
        from keystep.models.toy import ToyPipeline

        return ToyPipeline.__call__
    index = Path(model) / "model_index.json"
    if not index.is_file():
        return None
    import diffusers

    try:
        name = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--model: {index} describes no diffusers pipeline: {error!r}") from None
    pipeline = getattr(diffusers, name, None)
    return None if pipeline is None else pipeline.__call__


def fit_arguments(call: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Translate our words into the arguments of a pipeline's call.

    Args:
        call: the `__call__` function.
        given: values by our words (keys of `ARGUMENT_NAMES`); None = not given, the pipeline's default stays.

    Raises:
        ValueError: something was given that this pipeline does not take.
    """
    # Only named parameters count: what lands in a pipeline's **kwargs is mostly ignored in silence.
    parameters = inspect.signature(call).parameters
    fitted: dict[str, Any] = {}
    for word, value in given.items():
        if value is None:
            continue
        names = [name for name in ARGUMENT_NAMES[word] if name in parameters]
        if not names:
            accepted = [w for w, all_names in ARGUMENT_NAMES.items() if set(all_names) & set(parameters)]
            owner = call.__qualname__.split(".")[0]
            raise ValueError(
                f"--{word}: {owner} does not take it; it takes {', '.join('--' + w for w in accepted)}"
            )
        fitted[names[0]] = value
    return fitted


def check_words(model: str, given: Mapping[str, Any]) -> None:
    """`fit_arguments` before loading, where the pipeline's class is known by then.

    Raises:
        ValueError: as there.
    """
    call = find_call(model)
    if call is not None:
        fit_arguments(call, given)


def check_methods(pipe: Any, methods: Iterable[Any]) -> None:
    """Attach every method once and take it off again, so that none fails after others ran for hours.

    Raises:
        ValueError: a method does not fit the pipeline.
    """
    import keystep

    for method in methods:
        with keystep.accelerate(pipe, method):
            pass


def load_pipeline(model: str, dtype: Dtype, device: str) -> Any:
    """Load a pipeline, its own progress bars switched off.

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
    pipe = keystep.load(model, dtype=getattr(torch, dtype.value), device=device)
    pipe.set_progress_bar_config(disable=True)
    return pipe
