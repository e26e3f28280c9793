"""`transformer_forward*.safetensors`: one forward of a transformer and its intermediates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from .networks import find_source
from .report import ABSOLUTE, Case, Result, largest_difference, not_run, worst

Tensors = dict[str, torch.Tensor]


def find(folder: Path, label: str) -> Iterator[Case]:
    """The forward cases of a folder."""
    for path in sorted(folder.glob("transformer_forward*.safetensors")):
        yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """Compare `out`, `out_with_<argument>` and `mid.<module>`, absolutely."""
    source = find_source(path.parent)
    if isinstance(source, str):
        yield not_run(name, source)
        return
    model, tensors = source.build(), load_file(path)
    inputs = {key.removeprefix("in."): value for key, value in tensors.items() if key.startswith("in.")}
    inputs["encoder_hidden_states"] = without_images(inputs["encoder_hidden_states"])
    optional = {
        key.removeprefix("out_with_"): key for key in tensors if key.startswith("out_with_")
    }  # `out` is without these arguments
    inputs |= source.network.extras(model, inputs["hidden_states"])
    plain = {key: value for key, value in inputs.items() if key not in optional}
    names = [key.removeprefix("mid.") for key in tensors if key.startswith("mid.")]
    for key in (key for key in tensors if key.startswith("buffer.")):
        error = largest_difference(model.get_buffer(key.removeprefix("buffer.")), tensors[key])
        yield Result(f"{name} {key}", error, ABSOLUTE)
    output, middle = evaluate(model, plain, names)
    yield Result(f"{name} out", largest_difference(output, tensors["out"]), ABSOLUTE)
    if names:
        yield compare_middle(name, middle, {key: tensors[f"mid.{key}"] for key in names})
    for argument, key in optional.items():
        extra = mask_as_bias(inputs[argument], inputs["hidden_states"])
        output, _ = evaluate(model, plain | {argument: extra}, [])
        yield Result(f"{name} {key}", largest_difference(output, tensors[key]), ABSOLUTE)


def without_images(text: torch.Tensor) -> torch.Tensor:
    """Text (rows, tokens, width); Open-Sora-Plan has a dimension more, for images trained beside videos."""
    return text.squeeze(1) if text.ndim == 4 else text


def mask_as_bias(mask: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A text mask (B, L) as the bias (B * frames, 1, L) that diffusers' Latte adds to attention scores."""
    return ((1 - mask) * -10000.0).repeat_interleave(latents.shape[2], dim=0)[:, None]


def evaluate(model: torch.nn.Module, inputs: Tensors, names: list[str]) -> tuple[torch.Tensor, Tensors]:
    """The output of one forward, and the outputs of the named modules."""
    middle: Tensors = {}
    handles = []
    for name in names:
        module, index = locate(model, name)
        if module is not None:
            handles.append(module.register_forward_hook(keeper(middle, name, index)))
    with torch.no_grad():
        output = model(**inputs, return_dict=False)[0]
    for handle in handles:
        handle.remove()
    return output, middle


def locate(model: torch.nn.Module, name: str) -> tuple[torch.nn.Module | None, int | None]:
    """A module by name, or the module and the index of its output that `name.<index>` means."""
    parent, _, last = name.rpartition(".")
    modules = dict(model.named_modules())
    if name in modules:
        return modules[name], None
    return (modules[parent], int(last)) if parent in modules and last.isdigit() else (None, None)


def keeper(middle: Tensors, name: str, index: int | None) -> Callable[..., None]:
    """A forward hook that keeps an output (or one of several) under a name."""

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        del module, inputs
        middle[name] = output if index is None else output[index]

    return keep


def compare_middle(name: str, ours: Tensors, golden: Tensors) -> Result:
    """The worst intermediate; names that are no modules are counted in the note."""
    names = [key for key in golden if key in ours]
    error, index = worst([largest_difference(ours[key], without_images(golden[key])) for key in names])
    absent = f"; {len(golden) - len(names)} are no modules" if len(names) < len(golden) else ""
    worst_name = names[index] if names else "-"
    return Result(f"{name} mid.*", error, ABSOLUTE, f"worst of {len(names)}: {worst_name}{absent}")
