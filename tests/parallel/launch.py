"""Several processes for a test, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

# Processes are copies of one that has imported everything, and nothing else.
multiprocessing.set_forkserver_preload(["keystep.ranks.parallel", "tests.matrix", "tests.laws.instruments"])
PATIENCE = timedelta(seconds=60)  # no test waits longer for a rank that is gone


def launch(work: Callable[..., Any], size: int, *args: Any) -> list[Any]:
    """Run `work(rank, *args)` in `size` processes; what they returned, by rank.

    A rank that raises fails the test with its traceback.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            _run, (work, size, folder, args), size, start_method="forkserver"
        )
        return [torch.load(Path(folder) / str(rank), weights_only=False) for rank in range(size)]


def _run(rank: int, work: Callable[..., Any], size: int, folder: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=size, timeout=PATIENCE)
    try:
        torch.save(work(rank, *args), Path(folder) / str(rank))
    finally:
        dist.destroy_process_group()
