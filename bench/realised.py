"""Overhead of a policy that never skips, and how much of the skipped work becomes saved time.

    python -m bench.realised --pairs 7 --steps 20 --out bench/results

Plain and accelerated generations run in turns in one process; ratios are taken pair by pair. Random weights
do not slow down like trained ones, so AdaCache gets a codebook that skips two of three evaluations.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch

import keystep
from bench.shapes import SHAPES, Shape
from keystep.how import Constant, FrequencyBands, Hold, Linear
from keystep.metrics.flops import FlopCounter
from keystep.metrics.loop import read_loop, read_seconds
from keystep.what import Attention, Branch, Span
from keystep.when import Always

NEVER_SKIPPING: dict[str, Any] = {
    "never: span": keystep.Policy((keystep.Rule(Span(), Always(), Hold()),), "never: span"),
    "never: attention and branch": keystep.Policy(
        (
            keystep.Rule(Branch(), Always(), FrequencyBands()),
            keystep.Rule(Attention(), Always(), Linear(Constant(0.5))),
        ),
        "never: attention and branch",
    ),
    "never: adacache, measuring": keystep.AdaCache(codebook={0.0: 1}, moreg=True),
}
SKIPPING: dict[str, Any] = {
    "fastercache": keystep.FasterCache(),
    "fastercache, attention only": keystep.FasterCache(cfg=False),
    "fastercache, CFG-Cache only": keystep.FasterCache(attention=False),
    "adacache, rate 3": keystep.AdaCache(codebook={1e9: 3}, native=20),
}


@dataclass(frozen=True)
class Pair:
    """Seconds of the denoising loop, one right after the other."""

    plain: float
    accelerated: float

    @property
    def ratio(self) -> float:
        return self.plain / self.accelerated


CLOCKS = {"wall": read_seconds, "cpu": time.process_time}  # CPU time stands other work on the machine


def seconds(pipe: Any, shape: Shape, options: argparse.Namespace, method: Any) -> float:
    steps = options.steps
    accelerated = nullcontext() if method is None else keystep.accelerate(pipe, method)
    with accelerated, read_loop(pipe, CLOCKS[options.clock]) as reading:
        pipe(**shape.arguments(steps))
    return reading.elapsed


def flops(pipe: Any, shape: Shape, steps: int, method: Any) -> tuple[int, keystep.Trace | None]:
    counter = FlopCounter()
    with counter:
        if method is None:
            pipe(**shape.arguments(steps))
            trace = None
        else:
            with keystep.accelerate(pipe, method) as session:
                pipe(**shape.arguments(steps))
            trace = session.trace
    if counter.uncounted:
        raise RuntimeError(f"attention operators without a formula: {sorted(counter.uncounted)}")
    return counter.total, trace


def measure(pipe: Any, shape: Shape, options: argparse.Namespace, name: str, method: Any) -> dict[str, Any]:
    """One row: the warm-up counts FLOPs, then the pairs; every other pair begins with the accelerated run."""
    steps = options.steps
    plain_flops, _ = flops(pipe, shape, steps, None)
    own_flops, trace = flops(pipe, shape, steps, method)
    assert trace is not None
    pairs = []
    for index in range(options.pairs):
        if index % 2:
            accelerated = seconds(pipe, shape, options, method)
            pairs.append(Pair(seconds(pipe, shape, options, None), accelerated))
        else:
            plain = seconds(pipe, shape, options, None)
            pairs.append(Pair(plain, seconds(pipe, shape, options, method)))
    ratios = [pair.ratio for pair in pairs]
    compute = own_flops / plain_flops
    speedup = statistics.median(ratios)
    return {
        "model": shape.name,
        "method": name,
        "evaluation_ms": 1000 * statistics.median(pair.plain for pair in pairs) / steps,
        "compute_ratio": compute,
        "speedup": speedup,
        "speedup_min": min(ratios),
        "speedup_max": max(ratios),
        "realised": speedup * compute,
        "overhead": 1 / speedup - 1 if compute == 1 else None,
        "key_steps": len(trace.key_steps),
        "cache_bytes": trace.peak_cache_bytes,
        "hidden_states": trace.peak_cache_bytes / trace.hidden_state_bytes
        if trace.hidden_state_bytes
        else None,
        "pairs": [[pair.plain, pair.accelerated] for pair in pairs],
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | method | ms / evaluation | compute ratio | speed-up (min - max) | realised | overhead | "
        "cache, hidden states |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        overhead = "" if row["overhead"] is None else f"{100 * row['overhead']:+.1f} %"
        hidden = "" if row["hidden_states"] is None else f"{row['hidden_states']:.2f}"
        lines.append(
            f"| {row['model']} | {row['method']} | {row['evaluation_ms']:.0f} | {row['compute_ratio']:.3f} | "
            f"{row['speedup']:.2f} ({row['speedup_min']:.2f} - {row['speedup_max']:.2f}) | "
            f"{row['realised']:.2f} | "
            f"{overhead} | {hidden} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "commit": commit.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=7, help="timed pairs of each method")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--models", default=",".join(shape.name for shape in SHAPES))
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--methods", default="", help="only methods that match this regular expression")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument(
        "--threads", type=int, default=1, help="one thread leaves less to the scheduler's luck"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    command = "python -m bench.realised " + " ".join(sys.argv[1:])
    for shape in SHAPES:
        if shape.name in options.models.split(","):
            measure_shape(shape, options, command)


def measure_shape(shape: Shape, options: argparse.Namespace, command: str) -> None:
    """All methods on one pipeline; the files are written after every row, so that nothing is lost."""
    pipe = shape.build()
    pipe.set_progress_bar_config(disable=True)
    rows: list[dict[str, Any]] = []
    about = machine()
    options.out.mkdir(parents=True, exist_ok=True)
    methods = NEVER_SKIPPING | SKIPPING
    for name in [name for name in methods if re.search(options.methods, name)]:
        rows.append(measure(pipe, shape, options, name, methods[name]))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        result = {"machine": about, "command": command, "rows": rows}
        (options.out / f"realised_{shape.name}_cpu.json").write_text(json.dumps(result, indent=1))
        header = ", ".join(f"{key} {value}" for key, value in about.items())
        (options.out / f"realised_{shape.name}_cpu.md").write_text(
            f"`{command}`; {header}\n\n{table(rows)}\n"
        )


if __name__ == "__main__":
    main()
