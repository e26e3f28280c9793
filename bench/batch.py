"""What the batch engine costs an item, and a batch of the toy model whose workers are killed.

    python -m bench.batch overhead
    python -m bench.batch kills

`overhead` runs a job that makes nothing but bytes, on two workers: what is left is the queue, the way to the
worker and back, the file with its hash, and the manifest's line, both synced. `kills` runs the command on 200
prompts, kills a worker three times and the whole batch once, goes on, and counts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from keystep.batch import Figures, Item, LocalWorkers, Manifest, Product, Record, Workers, run_batch
from keystep.batch.cluster import RayWorkers

NUM_WORKERS = 2
SIZES = {"20 kB, a toy video": 20_000, "10 MB, some seconds of 720p": 10_000_000}
NUM_NOTHINGS = {20_000: 1000, 10_000_000: 50}
NUM_ITEMS, NUM_STEPS = 200, 6
REUSE = {"codebook": {"100": 3}, "native": NUM_STEPS}  # two of three evaluations are skipped
KILL_WORKER_AT, KILL_BATCH_AT = (25, 60, 90), 120
FOLDERS = {"in memory": "/dev/shm", "on disk": None}
PROMPTS = Path(__file__).parent / "prompts" / "development.txt"


@dataclass(frozen=True)
class Nothing:
    """Makes so many bytes at once."""

    num_bytes: int

    def load(self) -> Callable[[Item], Product]:
        product = Product(os.urandom(self.num_bytes), Figures(loop_s=0.0, total_s=0.0))
        return lambda _: product


HIRE: dict[str, Callable[[Nothing], Workers]] = {
    f"{NUM_WORKERS} processes": lambda job: LocalWorkers(job, [{}] * NUM_WORKERS),
    f"{NUM_WORKERS} Ray actors": lambda job: RayWorkers(job, NUM_WORKERS, "local"),
}


class Silent:
    """A watcher that does nothing."""

    def on_finished(self, record: Record) -> None:
        pass

    def on_retry(self, item: Item, reason: str) -> None:
        pass

    def on_set_aside(self, item: Item, error: str) -> None:
        pass

    def on_loss(self, worker: int, reason: str) -> None:
        pass


def measure_overhead() -> None:
    print("| workers | an item's file | items | folder | ms an item | of that, processor of the command |")
    print("|---|---|---|---|---|---|")
    for kind, hire in HIRE.items():
        for size, num_bytes in SIZES.items():
            for place, folder in FOLDERS.items():
                num = NUM_NOTHINGS[num_bytes]
                wall_s, cpu_s = time_items(hire(Nothing(num_bytes)), num, folder)
                print(f"| {kind} | {size} | {num} | {place} | {1000 * wall_s:.2f} | {1000 * cpu_s:.2f} |")


def time_items(workers: Workers, num: int, place: str | None) -> tuple[float, float]:
    """Seconds an item between the first and the last that is finished, and processor seconds an item."""
    items = [Item(id=str(index), prompt="nothing", method="none") for index in range(num)]
    with tempfile.TemporaryDirectory(dir=place) as folder, Manifest(Path(folder), {}) as manifest:
        begin = time.process_time()
        run_batch(items, workers, manifest, Silent())
        cpu_s = time.process_time() - begin
        times = [datetime.fromisoformat(record.finished).timestamp() for record in manifest.records.values()]
    return (max(times) - min(times)) / (num - 1), cpu_s / num


def run_and_kill() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prompts = [line for line in PROMPTS.read_text().splitlines() if line and not line.startswith("#")]
        lines = [
            {"prompt": prompts[i % len(prompts)], "seed": i, "steps": NUM_STEPS + i % 2}
            for i in range(NUM_ITEMS)
        ]
        (place / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for is_first in (True, False):
            begin = time.perf_counter()
            batch = subprocess.Popen(command(place), stdout=subprocess.PIPE, text=True)
            killed = kill(batch, place / "out") if is_first else []
            out = batch.communicate()[0]
            wall_s = time.perf_counter() - begin
            print(f"run of {wall_s:.0f} s, status {batch.returncode}, workers killed: {len(killed)}")
            print(out)
        report(place / "out")


def command(place: Path) -> list[str]:
    options = {"model": "toy", "method": "adacache", "workers": NUM_WORKERS, "out": place / "out"}
    words = [f"--{name}={value}" for name, value in options.items()]
    words += [f"--set={name}={json.dumps(value)}" for name, value in REUSE.items()]
    return [sys.executable, "-m", "keystep", "batch", str(place / "prompts.jsonl"), *words]


def kill(batch: subprocess.Popen[str], out: Path) -> list[int]:
    killed = []
    for count in KILL_WORKER_AT:
        wait_for(batch, out, count)
        killed.append(find_workers(batch.pid)[len(killed) % NUM_WORKERS])
        os.kill(killed[-1], signal.SIGKILL)
    wait_for(batch, out, KILL_BATCH_AT)
    workers = find_workers(batch.pid)
    batch.kill()
    time.sleep(5)
    print(f"workers alive 5 s after the batch was killed: {sum(map(is_alive, workers))} of {len(workers)}")
    return killed


def wait_for(batch: subprocess.Popen[str], out: Path, count: int) -> None:
    while batch.poll() is None and count_lines(out) < count:
        time.sleep(0.05)


def count_lines(out: Path) -> int:
    with suppress(FileNotFoundError):
        return (out / "manifest.jsonl").read_bytes().count(b"\n")
    return 0


def find_workers(pid: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", "spawn_main"], capture_output=True, text=True, check=True
    )
    return [int(word) for word in found.stdout.split()]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def report(out: Path) -> None:
    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in (out / "videos").iterdir()}
    agree = sum(files.get(Path(record["file"]).name) == record["sha256"] for record in records)
    print(
        f"lines {len(records)}, different ids {len({record['id'] for record in records})}, files {len(files)}"
    )
    print(f"lines whose file has their hash {agree}, items with more than one try "
          f"{sum(record['tries'] > 1 for record in records)}")  # fmt: skip


if __name__ == "__main__":
    {"overhead": measure_overhead, "kills": run_and_kill}[sys.argv[1]]()
