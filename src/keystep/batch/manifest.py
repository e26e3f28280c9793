"""What is finished, on disk: a line of JSON and a file for each item, and what is wrong with the others.

An item is finished when its line is in the manifest and its file has the line's hash. The file comes first:
whatever happens between the two leaves an item that is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from keystep.batch.item import RECORD, Item, Product, Record
from keystep.media.files import atomic_path, write_text

MANIFEST, FAILED, LOCK = "manifest.jsonl", "failed.jsonl", ".lock"
VIDEOS, SUFFIX = "videos", ".mp4"


class Manifest:
    """Context manager: the folder of a batch, which nobody else writes meanwhile.

    Args:
        folder: made if absent.
        settings: what all items share; JSON values.

    Raises:
        ValueError: on entering: another batch is at work here, or the manifest is broken.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.records: dict[str, Record] = {}
        self.failures: list[dict[str, Any]] = []
        self._settings = json.loads(json.dumps(settings))  # as they come back from a file
        self._lock = FileLock(folder / LOCK, timeout=0)
        self._path = folder / MANIFEST

    def __enter__(self) -> Manifest:
        (self.folder / VIDEOS).mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"--out: another batch is at work in {self.folder}") from None
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed in __exit__
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def choose_missing(self, items: Iterable[Item]) -> list[Item]:
        """Those that are not finished.

        Raises:
            ValueError: one is finished under the same id, but was made of something else.
        """
        missing = []
        for item in items:
            record = self.records.get(item.id)
            if record is None:
                missing.append(item)
                continue
            now = json.loads(json.dumps({**asdict(item), "settings": self._settings}))
            for name, before in record.asked.items():
                if before != now[name]:
                    raise ValueError(
                        f"--out: {self.folder} holds {item.id!r} with {name} = {before!r}, given now: "
                        f"{now[name]!r}; give another folder, or the item another id"
                    )
        return missing

    def add(self, item: Item, product: Product, worker: str, tries: int) -> Record:
        """Keep a finished item: its file, then its line.

        Raises:
            OSError: the disk is full or cannot be written; nothing half-written is left.
        """
        assert item.id not in self.records, item.id
        name = f"{VIDEOS}/{item.id}{SUFFIX}"
        with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
            file.write(product.video)
            file.flush()
            os.fsync(file.fileno())
        record = Record(
            **asdict(item),
            **asdict(product.figures),
            settings=self._settings,
            file=name,
            sha256=hashlib.sha256(product.video).hexdigest(),
            num_bytes=len(product.video),
            worker=worker,
            tries=tries,
            finished=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        )
        self._append(RECORD.dump_json(record) + b"\n")
        self.records[item.id] = record
        return record

    def set_aside(self, what: Mapping[str, Any], error: str) -> None:
        """Keep what cannot be made, with its error, in a file of its own; a later run starts that file anew.

        Raises:
            OSError: as `add`.
        """
        self.failures.append({**what, "error": error})
        write_text(self.folder / FAILED, "".join(json.dumps(failure) + "\n" for failure in self.failures))

    def _append(self, line: bytes) -> None:
        end = self._path.stat().st_size
        try:
            if self._file.write(line) != len(line):  # what a write says that fills the disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(self._file.fileno())
        except OSError:
            os.truncate(self._path, end)
            raise

    def _read(self) -> None:
        """Take up where an earlier run ended, and clear away what it left half-done."""
        for pattern in (f"{VIDEOS}/.*{SUFFIX}", f".{Path(MANIFEST).stem}-*", f".{Path(FAILED).stem}-*"):
            for leftover in self.folder.glob(pattern):
                leftover.unlink()
        (self.folder / FAILED).unlink(missing_ok=True)
        if not self._path.exists():
            return
        data = self._path.read_bytes()
        *lines, _ = data.split(b"\n")  # behind the last line's end: nothing, or one that was cut off
        read = [self._parse(number, line) for number, line in enumerate(lines, start=1)]
        self.records = {record.id: record for record in read if self._is_whole(record)}
        text = b"".join(RECORD.dump_json(record) + b"\n" for record in self.records.values())
        if text != data:
            write_text(self._path, text.decode())

    def _parse(self, number: int, line: bytes) -> Record:
        try:
            return RECORD.validate_json(line)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(
                f"--out: line {number} of {self._path} is broken ({'.'.join(map(str, problem['loc']))}: "
                f"{problem['msg']}); remove the line, or give another folder"
            ) from None

    def _is_whole(self, record: Record) -> bool:
        try:
            with open(self.folder / record.file, "rb") as file:
                return _digest(file) == record.sha256
        except OSError:
            return False


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
