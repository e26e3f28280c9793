"""A job of milliseconds, and what a test can learn of its workers from outside."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from keystep.batch import Backoff, Figures, Item, LocalWorkers, Manifest, Product, Record, Workers, run_batch

PLACE = "KEYSTEP_TEST_PLACE"
LONG_S = 120.0  # the first time that something sleeps; no test waits for it
SETTINGS = {"model": "quick"}
QUICK = Backoff(base_s=0.01, cap_s=0.1)


@dataclass(frozen=True)
class Quick:
    """Writes down which processes live and what they make. Prompts are orders: `die` ..."""

    folder: Path
    pause_s: float = 0.0

    def load(self):
        with open(self.folder / "pids", "a") as file:
            file.write(f"{os.getpid()}\n")
        with open(self.folder / "places", "a") as file:
            file.write(f"{os.environ.get(PLACE)}\n")
        return partial(make, self.folder, self.pause_s)


def make(folder: Path, pause_s: float, item: Item) -> Product:
    with open(folder / "made", "a") as file:
        file.write(f"{os.getpid()} {item.id}\n")
    time.sleep(LONG_S if is_first_sleep(folder, item) else pause_s)
    if item.prompt == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item.prompt == "raise value":
        raise ValueError("no such size")
    if item.prompt == "raise runtime":
        raise RuntimeError("CUDA error")
    if item.prompt == "raise full":
        raise OSError(errno.ENOSPC, "No space left on device")
    return Product(content(item), Figures(loop_s=pause_s, total_s=pause_s))


def is_first_sleep(folder: Path, item: Item) -> bool:
    with suppress(FileExistsError):
        if item.prompt == "sleep":
            (folder / "slept").touch(exist_ok=False)
            return True
    return False


@dataclass(frozen=True)
class Unloadable:
    """Fails before it can begin."""

    error: Exception | None

    def load(self):
        if self.error is None:
            os.kill(os.getpid(), signal.SIGKILL)
        raise self.error


def content(item: Item) -> bytes:
    return sha256(item.id.encode()).digest() * 1000


def items(num: int, prompt: str = "a cat") -> list[Item]:
    return [
        Item(id=f"{index:03d}", prompt=prompt, method="none", height=64 * (1 + index % 2))
        for index in range(num)
    ]


def items_with_a_long_one(num: int) -> list[Item]:
    first, *others = items(num)
    return [replace(first, prompt="sleep"), *others]


def local(folder: Path, num: int = 2, pause_s: float = 0.0) -> LocalWorkers:
    return LocalWorkers(Quick(folder, pause_s), [{}] * num)


def read_pids(folder: Path) -> list[int]:
    path = folder / "pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def read_made(folder: Path) -> list[tuple[int, str]]:
    """(worker's process, item) in the order in which items were begun."""
    lines = (folder / "made").read_text().splitlines()
    return [(int(pid), name) for pid, name in map(str.split, lines)]


class Killer:
    """Kills -9 a worker that is in the middle of something, each time so many items are finished."""

    def __init__(self, folder: Path, thresholds: Sequence[int]) -> None:
        self.killed: list[int] = []
        self._folder = folder
        self._thresholds = list(thresholds)

    def __call__(self, finished: Sequence[Record]) -> None:
        if not self._thresholds or len(finished) < self._thresholds[0]:
            return
        names = {record.id for record in finished}
        busy = [pid for pid, name in read_made(self._folder) if name not in names and is_alive(pid)]
        if busy:  # else the other one is still loading
            os.kill(busy[-1], signal.SIGKILL)
            self.killed.append(busy[-1])
            self._thresholds.pop(0)


class Diary:
    """A watcher that keeps what it hears, and may act on what is finished."""

    def __init__(self, *acts: Callable[[Sequence[Record]], None]) -> None:
        self.finished: list[Record] = []
        self.retried: list[tuple[str, str]] = []
        self.set_aside: dict[str, str] = {}
        self.down: list[str] = []
        self._acts = acts

    def on_finished(self, record):
        self.finished.append(record)
        for act in self._acts:
            act(self.finished)

    def on_retry(self, item, reason):
        self.retried.append((item.id, reason))

    def on_set_aside(self, item, error):
        self.set_aside[item.id] = error

    def on_loss(self, worker, reason):
        self.down.append(reason)


def run(folder: Path, wanted: list[Item], workers: Workers, diary: Diary, **options) -> Manifest:
    """A batch in `folder/out`; returns its manifest, left."""
    with Manifest(folder / "out", SETTINGS) as manifest:
        run_batch(manifest.choose_missing(wanted), workers, manifest, diary, **{"backoff": QUICK, **options})
    return manifest


def check_whole(folder: Path, wanted: list[Item]) -> list[dict]:
    """Every item is there exactly once, in the manifest and as a file of the right bytes; nothing else is."""
    lines = [json.loads(line) for line in (folder / "out" / "manifest.jsonl").read_text().splitlines()]
    assert Counter(line["id"] for line in lines) == Counter(item.id for item in wanted)
    by_id = {item.id: item for item in wanted}
    for line in lines:
        data = (folder / "out" / line["file"]).read_bytes()
        assert data == content(by_id[line["id"]])
        assert sha256(data).hexdigest() == line["sha256"]
    assert {path.name for path in (folder / "out" / "videos").iterdir()} == {f"{name}.mp4" for name in by_id}
    return lines


if __name__ == "__main__":  # a batch to be interrupted: folder, number of items
    place = Path(sys.argv[1])
    run(place, items_with_a_long_one(int(sys.argv[2])), local(place, pause_s=0.02), Diary())
