"""Several processes for a test, joined by gloo."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

from keystep.cli.main import main

# Processes are copies of one that has imported everything, and nothing else.
multiprocessing.set_forkserver_preload(["keystep.cli.main", "keystep.ranks.parallel", "tests.parallel.work"])
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


def launch_command(
    size: int, line: list[str], prepare: Callable[[int], None] | None = None
) -> list[tuple[int, str, str]]:
    """Run a command line in `size` processes as torchrun would; (status, output, errors) by rank.

    Args:
        size: how many.
        line: arguments of `keystep`.
        prepare: called with the rank before the command.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            _run_command, (size, port, folder, line, prepare), size, start_method="forkserver"
        )
        return [torch.load(Path(folder) / str(rank)) for rank in range(size)]


def _run_command(
    rank: int,
    size: int,
    port: int,
    folder: str,
    line: list[str],
    prepare: Callable[[int], None] | None,
) -> None:
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    if prepare is not None:
        prepare(rank)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line)
    torch.save((status, out.getvalue(), err.getvalue()), Path(folder) / str(rank))
