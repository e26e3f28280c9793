"""Independent instruments: snapshots of modules, counters of what really ran, bytes of live tensors."""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import ModelHook
from torch import nn

from keystep import KeystepWarning

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
)


class Count(ModelHook):
    """A forward patch like those of cpu offload, which counts."""

    def __init__(self) -> None:
        self.num_calls = 0

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        self.num_calls += 1
        return args, kwargs


@contextmanager
def may_warn() -> Iterator[None]:
    """Runs that are too short to skip anything say so; here that is not the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeystepWarning)
        yield


def transformers(pipe: Any) -> dict[str, nn.Module]:
    found = {name: getattr(pipe, name, None) for name in ("transformer", "transformer_2")}
    return {name: module for name, module in found.items() if module is not None}


def identity_of(value: Any) -> Any:
    """What makes two values the same object for a user; containers by the identity of their items."""
    if isinstance(value, dict):
        return {key: identity_of(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return type(value), len(value)
    if isinstance(value, torch.Tensor):
        return id(value), value.data_ptr(), tuple(value.shape), value.dtype
    return value if isinstance(value, (str, int, float, bool, type(None))) else id(value)


def snapshot(pipe: Any) -> dict[str, Any]:
    """Everything about all modules and the scheduler that leaving a context has to restore."""
    state: dict[str, Any] = {}
    for owner, transformer in transformers(pipe).items():
        for name, module in transformer.named_modules():
            forward = module.forward
            state[f"{owner}.{name}"] = {
                "type": type(module),
                "dict": {key: identity_of(value) for key, value in vars(module).items()},
                "hooks": {key: len(getattr(module, key)) for key in HOOKS},
                "forward": getattr(forward, "__func__", forward),
                "call": vars(module).get("_compiled_call_impl"),
            }
        state[f"{owner}:state_dict"] = {
            key: (value.data_ptr(), value.clone()) for key, value in transformer.state_dict().items()
        }
    scheduler = pipe.scheduler
    state["scheduler"] = {
        "type": type(scheduler),
        "keys": sorted(vars(scheduler)),
        "callables": {key for key, value in vars(scheduler).items() if callable(value)},
        "step": getattr(scheduler.step, "__func__", scheduler.step),
        "set_timesteps": getattr(scheduler.set_timesteps, "__func__", scheduler.set_timesteps),
    }
    state["pipe"] = sorted(vars(pipe))
    return state


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Paths at which two snapshots differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        lost = [f"{path}/{key}: gone" for key in before.keys() - after.keys()]
        new = [f"{path}/{key}: new" for key in after.keys() - before.keys()]
        inner = [
            d
            for key in before.keys() & after.keys()
            for d in differences(before[key], after[key], f"{path}/{key}")
        ]
        return lost + new + inner
    if isinstance(before, tuple) and len(before) == 2 and isinstance(before[1], torch.Tensor):
        is_same = before[0] == after[0] and torch.equal(before[1], after[1])
        return [] if is_same else [f"{path}: tensor changed"]
    return [] if before == after else [f"{path}: {before!r} -> {after!r}"]


def first_blocks(transformer: nn.Module) -> Any:
    """The (first) list of blocks of a transformer: the first list of modules there is."""
    return next(module for module in transformer.children() if isinstance(module, nn.ModuleList))


class Counters:
    """Counts the rows that really went through innermost Linear layers, with plain forward hooks.

    `attention`: query projections of the cached attention modules, `ff`: feed-forward layers of the blocks,
    `model`: the last projection. `cut()` ends an evaluation.
    """

    def __init__(self, pipe: Any, kinds: tuple[str, ...] = ("attn1", "attn")) -> None:
        self.now: Counter[str] = Counter()
        self.rows: list[Counter[str]] = []
        self._handles = []
        for transformer in transformers(pipe).values():
            for name, module in transformer.named_modules():
                if isinstance(module, nn.Linear):
                    kind = self._kind(name, kinds)
                    if kind:
                        self._handles.append(module.register_forward_hook(self._count(kind)))

    @staticmethod
    def _kind(name: str, kinds: tuple[str, ...]) -> str:
        if name.endswith(("to_q", "qkv")) and name.split(".")[-2] in kinds:
            return "attention"
        if "blocks." in name and any(f".{ff}." in name for ff in ("ff", "ffn", "mlp")):
            return "ff"
        return "model" if name in ("proj_out", "final_layer.linear") else ""

    def _count(self, kind: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            self.now[kind] += output.shape[:-1].numel()

        return hook

    def cut(self, *args: Any) -> dict[str, Any]:
        """End of an evaluation; has the signature of `callback_on_step_end`."""
        self.rows.append(self.now)
        self.now = Counter()
        return {}

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Counters:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextmanager
def only_new_objects() -> Iterator[None]:
    """Inside, the garbage collector looks only at what is made from now on: counting is fast."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def live_storages() -> dict[int, int]:
    """Bytes by storage pointer of every tensor alive."""
    gc.collect()
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, nn.Parameter):
            storage = thing.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    found.pop(0, None)
    return found


def live_bytes() -> int:
    return sum(live_storages().values())
