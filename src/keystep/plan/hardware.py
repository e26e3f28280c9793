"""GPUs and links by name, as their makers and measurements describe them. Data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from keystep.errors import require, unknown

HALVES = (torch.bfloat16, torch.float16)

# Dense operations a second in bfloat16 and float16, from NVIDIA's data sheets of the SXM boards.
GPUS = {
    "a100": 312e12,
    "h100": 989e12,
    "h200": 989e12,
    "b200": 2250e12,
}


@dataclass(frozen=True)
class Link:
    """What connects GPUs.

    Attributes:
        bandwidth: bytes a second that a GPU sends while it receives as many.
        latency: seconds a collective takes whatever its size.
    """

    bandwidth: float
    latency: float

    def __post_init__(self) -> None:
        require(self.bandwidth > 0, "bandwidth", self.bandwidth, "GB/s > 0")
        require(self.latency >= 0, "latency", self.latency, "microseconds >= 0")


# What NCCL reaches, not the line rate: 230 of A100's 300 GB/s (NVIDIA/nccl-tests issue 149), 370 of H100's
# 450 (issue 212), 48 of the 50 of NDR InfiniBand (issue 267); the same four fifths of PCIe's and NVLink 5's.
# Latency: NCCL's kernel launch and one round, ten to twenty microseconds within a node.
LINKS = {
    "nvlink3": Link(230e9, 15e-6),
    "nvlink4": Link(370e9, 15e-6),
    "nvlink5": Link(720e9, 15e-6),
    "pcie4": Link(25e9, 20e-6),
    "pcie5": Link(50e9, 20e-6),
    "ndr": Link(48e9, 25e-6),
}
USUAL_LINK = {"a100": "nvlink3", "h100": "nvlink4", "h200": "nvlink4", "b200": "nvlink5"}
# Of the peak; what the plain models of FasterCache's Table 1 reach on an A100: docs/scaling.md.
EFFICIENCY = 0.4


@dataclass(frozen=True)
class Machine:
    """What a run is spread over.

    Attributes:
        peak: operations a second of one GPU.
        link: between any two of them.
        efficiency: share of the peak that the denoiser reaches on one GPU, 0 to 1.
        other: seconds of a run outside the denoiser (text encoder, video decoder), on one GPU whatever
            their number.
    """

    peak: float
    link: Link
    efficiency: float = EFFICIENCY
    other: float = 0.0

    def __post_init__(self) -> None:
        require(self.peak > 0, "peak", self.peak, "TFLOP/s > 0")
        require(0 < self.efficiency <= 1, "efficiency", self.efficiency, "a share of the peak, > 0 and <= 1")
        require(self.other >= 0, "other", self.other, "seconds >= 0")


def find_peak(gpu: str, dtype: torch.dtype) -> float:
    """Operations a second of a GPU by its name.

    Raises:
        ValueError: an unknown name, or a dtype whose peak is not in the table.
    """
    if gpu not in GPUS:
        raise unknown("GPU", gpu, GPUS)
    name = str(dtype).removeprefix("torch.")
    require(dtype in HALVES, "dtype", name, "bfloat16 or float16; for others give the GPU's --peak")
    return GPUS[gpu]


def find_link(name: str) -> Link:
    """A link by its name.

    Raises:
        ValueError: an unknown name.
    """
    if name not in LINKS:
        raise unknown("link", name, LINKS)
    return LINKS[name]
