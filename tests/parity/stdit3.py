"""One forward of Open-Sora's transformer with all intermediates; the keys of the released one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.models.checkpoint import compare_keys
from keystep.models.opensora.config import transformer_arguments
from keystep.models.opensora.transformer import STDiT3

from .folder import keys_of, read_json
from .opensora import Tensors, find_stdit3, inputs_of, load_stdit3
from .report import ABSOLUTE, Case, Result, largest_difference, worst

REPEATED = {"t_mlp": ("t_block", 0), "t0_mlp": ("t_block", 1), "t0_embedder": ("t_embedder", 1)}
FIRST_BLOCK = "spatial_blocks.0"


def find(folder: Path, label: str) -> Iterator[Case]:
    """Forwards of a transformer, and descriptions of the released one."""
    for path in sorted(folder.glob("*.safetensors")):
        if keys_of(path) >= {"in.x", "in.y", "out", "act.block_input"}:
            yield Case(label + path.stem, path, run)
    for path in sorted(folder.glob("stdit3*state_dict.json")):
        yield Case(label + path.stem, path, run_released)


def run(name: str, path: Path) -> Iterator[Result]:
    """The output, and the worst intermediate."""
    golden, model = load_file(path), load_stdit3(*find_stdit3(path.parent))
    output, ours = evaluate(model, inputs_of(path))
    yield Result(f"{name} out", largest_difference(output, golden["out"]), ABSOLUTE)
    names = [key.removeprefix("act.") for key in golden if key.startswith("act.")]
    theirs = {key: golden[f"act.{key}"] for key in names}
    theirs["y_embedder"] = theirs["y_embedder"].squeeze(1)
    error, index = worst([largest_difference(ours[key], theirs[key]) for key in names])
    yield Result(f"{name} act.*", error, ABSOLUTE, f"worst of {len(names)}: {names[index]}")


@torch.no_grad()
def evaluate(model: STDiT3, inputs: Tensors) -> tuple[torch.Tensor, Tensors]:
    """The output of one forward, and its intermediates under the reference's names."""
    outputs: dict[str, list[torch.Tensor]] = defaultdict(list)
    entry: dict[str, torch.Tensor | None] = {}

    def keeper(name: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, args: Any, output: torch.Tensor) -> None:
            del module, args
            outputs[name].append(output)

        return keep

    def keep_entry(module: torch.nn.Module, args: Any) -> None:
        del module
        entry.update(zip(("hidden", "text", "modulation", "frames", "mask"), args, strict=True))

    handles = [module.register_forward_hook(keeper(name)) for name, module in model.named_modules() if name]
    handles.append(model.get_submodule(FIRST_BLOCK).register_forward_pre_hook(keep_entry))
    output = model(**inputs, return_dict=False)[0]
    for handle in handles:
        handle.remove()
    middle = {name: values[0] for name, values in outputs.items()}
    for name, (module, index) in REPEATED.items():
        if index < len(outputs[module]):
            middle[name] = outputs[module][index]
    return output, middle | of_entry(entry, middle["x_embedder"], output.shape[2])


def of_entry(entry: dict[str, Any], tokens: torch.Tensor, num_frames: int) -> Tensors:
    """What the first block was given: tokens with positions, these alone, the text without padding."""
    patches = tokens.shape[1] // num_frames
    text, mask = entry["text"], entry["mask"]
    packed = text.flatten(0, 1) if mask is None else text[mask]
    return {
        "block_input": entry["hidden"],
        "pos_embed": (entry["hidden"] - tokens)[:1, :patches],
        "y_packed": packed[None],
    }


def run_released(name: str, path: Path) -> Iterator[Result]:
    """The transformer of a released config has the released keys and shapes."""
    released = read_json(path)
    with torch.device("meta"):
        model = STDiT3(**transformer_arguments(released["config"]))
        state = {key: torch.empty(value["shape"]) for key, value in released["state_dict"].items()}
    problems = compare_keys(model, state)
    yield Result(
        f"{name} keys", float(len(problems)), note=f"{len(state)} keys {'; '.join(problems)}".strip()
    )
