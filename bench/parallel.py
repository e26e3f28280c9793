"""One video on two processes: CPU seconds of the busier one, over those of one process alone.

    python -m bench.parallel > bench/results/parallel_cpu.md

Processes share two cores with whatever else runs, so wall times say little; what a process computes itself
is counted instead, waiting left out. So the ratio is that of processes with cores of their own and links that
take no time, and shows what the split itself costs. Random weights of the real classes, one thread each.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

import keystep
from bench.shapes import SHAPES, TEXT_WIDTH, Shape

LAYOUTS = {"ulysses 2": {"ulysses": 2}, "cfg 2": {"ulysses": 1, "cfg": 2}}
STEPS, PAIRS = 3, 2


def wan() -> WanPipeline:
    """Width 256, 4 layers, 3 * 16 * 16 tokens; a call for each guidance branch."""
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=64, ffn_dim=1024, num_layers=4, text_dim=TEXT_WIDTH
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return WanPipeline(None, None, None, scheduler, transformer.eval())


WAN = Shape("wan", wan, {"num_frames": 9, "height": 256, "width": 256}, (16, 3, 32, 32))
MODELS = (*(shape for shape in SHAPES if shape.name in ("cogvideox", "latte")), WAN)


def seconds(shape: Shape, pipe: Any, layout: dict[str, int]) -> tuple[float, torch.Tensor]:
    """CPU seconds of this process for a video, and the video; without a layout each makes its own."""
    arguments = shape.arguments(STEPS)
    if shape is WAN:
        del arguments["prompt"], arguments["negative_prompt"]
    with keystep.parallel(pipe, **layout) if layout else nullcontext():
        begin = time.process_time()
        frames = pipe(**arguments).frames
        return time.process_time() - begin, frames


def measure(rank: int, folder: str) -> None:
    """One of two processes; what they took is left in the folder."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    rows = []
    for shape in MODELS:
        pipe = shape.build()
        pipe.set_progress_bar_config(disable=True)
        seconds(shape, pipe, {})  # warm up
        for name, layout in LAYOUTS.items():
            for _ in range(PAIRS):
                alone, wanted = seconds(shape, pipe, {})
                together, made = seconds(shape, pipe, layout)
                error = float((made - wanted).abs().max() / wanted.abs().max())
                rows.append((shape.name, name, alone, together, error))
    torch.save(rows, Path(folder) / str(rank))
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(measure, (folder,), 2, start_method="spawn")
        first, second = (torch.load(Path(folder) / str(rank)) for rank in range(2))
    print(f"`python -m bench.parallel`; {STEPS} steps, {PAIRS} pairs in turns, medians; CPU seconds\n")
    print("| model | layout | alone | busier of two | speed-up (min - max) | largest error |")
    print("|---|---|---|---|---|---|")
    runs: dict[tuple[str, ...], list[tuple[float, float, float]]] = {}
    for (*key, alone, together, error), (*_, alone2, together2, _) in zip(first, second, strict=True):
        runs.setdefault(tuple(key), []).append((min(alone, alone2), max(together, together2), error))
    for key, pairs in runs.items():
        ratios = [alone / together for alone, together, _ in pairs]
        alone, together, _ = map(statistics.median, zip(*pairs, strict=True))
        worst = max(error for *_, error in pairs)
        print(
            f"| {' | '.join(key)} | {alone:.2f} | {together:.2f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}) | {worst:.0e} |"
        )


if __name__ == "__main__":
    sys.exit(main())
