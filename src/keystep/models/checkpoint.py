"""Released checkpoints: find the files, read them safely, and load them only if every key fits."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import init_empty_weights
from torch import nn

from keystep.errors import require

State = Mapping[str, torch.Tensor]
Module = TypeVar("Module", bound=nn.Module)
CONFIG = "config.json"
_WRAPPER = "module."  # before all keys of a model that was trained on several devices
MAX_LISTED = 20  # names in an error; what follows is counted


def find_folder(source: str | PathLike[str], patterns: Sequence[str]) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (only files that match `patterns`).

    Raises:
        ValueError: `source` is neither a folder nor can it be downloaded.
    """
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(patterns)))
    except Exception as error:
        raise ValueError(
            f"checkpoint: given {str(source)!r}, which is no folder here and cannot be downloaded: "
            f"{type(error).__name__}: {error}"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """A folder's config.json.

    Raises:
        ValueError: there is none, or it is no JSON object.
    """
    path = folder / CONFIG
    require(path.is_file(), "checkpoint", str(folder), f"a folder with {CONFIG} and weights")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"checkpoint: {path} is no JSON: {error}") from None
    require(isinstance(config, dict), str(path), config, "a JSON object")
    return config


def read_weights(folder: Path) -> State:
    """All tensors of a checkpoint folder: safetensors (one file or an index), else weights-only torch files.

    Raises:
        ValueError: no weights there, or several files without an index.
    """
    for pattern in ("*.safetensors.index.json", "*.bin.index.json"):
        for index in sorted(folder.glob(pattern)):
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            return {key: value for name in names for key, value in read_file(folder / name).items()}
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt"):
        files = sorted(folder.glob(pattern))
        if len(files) > 1:
            raise ValueError(
                f"checkpoint: {folder} holds {', '.join(file.name for file in files)} and no index that says "
                "which belong together"
            )
        if files:
            return read_file(files[0])
    raise ValueError(f"checkpoint: {folder} holds no weights (*.safetensors, *.bin, *.pt, *.pth, *.ckpt)")


def read_file(path: Path) -> State:
    """The tensors of one file; torch files are read weights-only, and may wrap them, and their names.

    Raises:
        ValueError: the file holds something other than named tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    for wrapper in ("ema_state_dict", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict) and content[wrapper]:
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(f"checkpoint: {path} does not hold named tensors")
    if all(name.startswith(_WRAPPER) for name in content):
        return {name.removeprefix(_WRAPPER): value for name, value in content.items()}
    return content


def build(
    cls: Callable[..., Module],
    arguments: Mapping[str, Any],
    state: State,
    source: str | PathLike[str],
    dtype: torch.dtype,
) -> Module:
    """A module from its arguments and weights, on the CPU, in evaluation mode.

    Args:
        cls: its class.
        arguments: of the class.
        state: tensors by the module's own key names.
        source: named in errors.
        dtype: of floating-point weights.

    Raises:
        ValueError: lists missing, extra and mis-shaped keys.
    """
    with init_empty_weights():  # parameters alone: tables that no checkpoint holds are made here
        module = cls(**arguments)
    return load_weights(module, state, source, dtype=dtype).eval()


def load_weights(
    module: Module,
    state: State,
    source: str | PathLike[str],
    optional: Collection[str] = (),
    dtype: torch.dtype | None = None,
) -> Module:
    """Put checkpoint tensors into a module made on the meta device or with values; every key must fit.

    Args:
        module: gets the tensors themselves (no copy, unless their dtype is another).
        state: tensors by the module's own key names.
        source: named in errors.
        optional: keys that may be absent; the module keeps its value.
        dtype: of floating-point tensors; None = the module's own dtypes.

    Returns:
        The module.

    Raises:
        ValueError: lists missing, extra and mis-shaped keys.
    """
    problems = compare_keys(module, state, optional)
    if problems:
        raise ValueError(f"checkpoint {source} does not fit {type(module).__name__}: {'; '.join(problems)}")
    own = module.state_dict(keep_vars=True)
    fitting = {
        key: value.to(dtype if dtype and own[key].is_floating_point() else own[key].dtype)
        for key, value in state.items()
    }
    module.load_state_dict(fitting, strict=False, assign=True)
    return module


def compare_keys(module: nn.Module, state: State, optional: Collection[str] = ()) -> list[str]:
    """What keeps a state from fitting a module, in words; empty if it fits."""
    own = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    groups = {
        "missing": [key for key in own if key not in given and key not in optional],
        "extra": [key for key in given if key not in own],
        "mis-shaped": [
            f"{key} {given[key]} instead of {shape}"
            for key, shape in own.items()
            if given.get(key, shape) != shape
        ],
    }
    return describe(groups)


def describe(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Keys by what is wrong with them, in words; empty if there are none."""
    return [f"{len(keys)} {what}: {_list(keys)}" for what, keys in groups.items() if keys]


def _list(keys: Sequence[str]) -> str:
    hidden = len(keys) - MAX_LISTED
    return ", ".join(keys[:MAX_LISTED]) + (f" and {hidden} more" if hidden > 0 else "")
