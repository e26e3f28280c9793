"""`units*.json` beside `units*.safetensors`: AdaCache's decision function on residuals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.when import Codebook, MotionRatio, MotionRegularisation, RelativeChange, Signal

from .folder import read_json
from .report import NAN, Case, Result

FLOAT32 = 1e-5  # relative; recorded in float32
DISTANCE = RelativeChange(over="all")


def find(folder: Path, label: str) -> Iterator[Case]:
    """The unit files of a folder."""
    for path in sorted(folder.glob("units*.json")):
        if path.with_suffix(".safetensors").exists():
            yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """One result per unit."""
    tensors = load_file(path.with_suffix(".safetensors"))
    for unit in read_json(path):
        key = f"u{unit['i']}"
        yield decide(f"{name} {key}", unit, tensors[f"{key}.old"], tensors[f"{key}.new"])


def decide(name: str, unit: dict[str, Any], old: torch.Tensor, new: torch.Tensor) -> Result:
    """The rate exactly; running mean and motion level relatively. `old` and `new` are (B, T * S, C)."""
    measured = measure(DISTANCE, new, old, unit["T"])
    count = unit["count_before"]
    # the reference averages over the blocks that vote in one forward; keystep has one voter
    mean = (unit["avg_before"] * count + measured / unit["prev_rate"]) / (count + 1)
    factor, level = regularise(unit, new)
    rate = controller(unit).lookup(mean * factor)
    # the exponent multiplies the rounding of the motion ratio, which the reference sums in float32
    exponent = unit["moreg_hyp"][1] if unit["moreg"] else 1.0
    errors = [
        relative(mean, unit["avg_after"]),
        relative(level, unit["prev_moreg_after"]) / exponent,
    ]
    if rate != unit["new_rate"] or count + 1 != unit["count_after"]:
        return Result(name, float("inf"), FLOAT32, f"rate {rate}, not {unit['new_rate']}")
    return Result(name, max(errors), FLOAT32, f"rate {rate}")


def relative(ours: float, golden: float) -> float:
    """Relative error; absolute where the golden is 0, and none where both are nan."""
    if golden != golden:
        return 0.0 if ours != ours else NAN
    return abs(ours - golden) / (abs(golden) or 1.0)


def measure(signal: Signal, new: torch.Tensor, old: torch.Tensor, frames: int) -> float:
    """A signal's number from its sums, as the engine reads them."""
    sums = signal.measure(new, (old,), frames).tolist()
    return signal.combine([list(zip(*stride, strict=True)) for stride in sums])


def controller(unit: dict[str, Any]) -> Codebook:
    """The last threshold of a reference codebook is never compared: its rate is the one beyond the others."""
    entries = tuple((float(threshold), int(rate)) for threshold, rate in unit["codebook"])
    return Codebook(entries[:-1], entries[-1][1])


def regularise(unit: dict[str, Any], new: torch.Tensor) -> tuple[float, float]:
    """(factor on the distance, motion level to remember)."""
    if not unit["moreg"]:
        return 1.0, unit["prev_moreg_before"]
    motion = MotionRatio(over="all", strides=tuple(unit["moreg_strides"]))
    pivot, exponent, divisor = unit["moreg_hyp"][:3]
    first, last = unit["moreg_steps"]
    moreg = MotionRegularisation(first, last, motion, pivot, exponent, divisor, unit["mograd_mul"])
    level = measure(motion, new, new, unit["T"])
    return moreg.factor(level, unit["prev_moreg_before"], unit["prev_rate"], unit["fwd_id"])
