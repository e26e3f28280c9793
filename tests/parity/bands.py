"""`fft_units*.json` beside `fft_units*.safetensors`: the split into frequency bands and its recombination."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from keystep.how import Entry, FrequencyBands, Gain, Moment

from .folder import read_json
from .report import Case, Result, largest_difference, relative_l2

FLOAT32 = 1e-5
Tensors = dict[str, torch.Tensor]


def find(folder: Path, label: str) -> Iterator[Case]:
    """The band files of a folder."""
    for path in sorted(folder.glob("fft_units*.json")):
        if path.with_suffix(".safetensors").exists():
            yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """One result per quantity of every sample."""
    tensors = load_file(path.with_suffix(".safetensors"))
    for sample in read_json(path)["cases"]:
        key = f"s{sample['i']}"
        own = {k.removeprefix(f"{key}."): v for k, v in tensors.items() if k.startswith(f"{key}.")}
        yield from compare(f"{name} {key}", sample, own)


def compare(name: str, sample: dict[str, Any], tensors: Tensors) -> Iterator[Result]:
    """Mask, bands of the conditional output, and the rebuilt unconditional one."""
    bands = predictor(sample, tensors["cond"].shape)
    wrong = (mask_of(bands, tensors["low_mask"].shape) != tensors["low_mask"]).sum().item()
    yield Result(f"{name} mask", float(wrong), note=f"radius {sample['radius']}")
    for band, ours in zip(("low", "high"), bands.keep(tensors["cond"]), strict=True):
        golden = torch.complex(tensors[f"{band}_cond.real"], tensors[f"{band}_cond.imag"])
        yield Result(f"{name} {band}", spectrum_error(ours, golden), FLOAT32)
    entry = Entry(Moment(1, 1.0), bands.keep(tensors["uncond"] - tensors["cond"]))
    ours = tensors["new_cond"] + bands.predict([entry], Moment(2, 0.0))
    error = largest_difference(ours, tensors["recovered_uncond"])
    yield Result(f"{name} recovered", error, FLOAT32)


def predictor(sample: dict[str, Any], shape: torch.Size) -> FrequencyBands:
    """Bands as recorded; the usual radius is keystep's own default."""
    shortest = min(shape[-2:])
    radius = FrequencyBands().radius if shortest // 5 == sample["radius"] else sample["radius"] / shortest
    low, high = (Gain(sample[f"{band}_weight"], accumulates=False) for band in ("low", "high"))
    return FrequencyBands(low, high, radius)


def mask_of(bands: FrequencyBands, shape: torch.Size) -> torch.Tensor:
    """The low band's mask, centred: the spectrum of what is kept of an impulse, which has every frequency."""
    impulse = torch.zeros(shape)
    impulse[0, 0] = 1.0
    low, _ = bands.keep(impulse)
    return torch.fft.fftshift(torch.fft.fft2(low).real).round().to(torch.uint8)


def spectrum_error(ours: torch.Tensor, golden: torch.Tensor) -> float:
    """Relative L2 of spectra; recorded ones are rolled by half along all axes, also frames and channels."""
    spectrum = torch.fft.fftshift(torch.fft.fft2(ours.double()))
    return relative_l2(torch.view_as_real(spectrum), torch.view_as_real(golden))
