"""The results on disk: one JSON file, whole after every row, from which an interrupted run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keystep.lab.rows import Key, Row, read_row
from keystep.media import write_text
from keystep.metrics.outcome import encode_numbers

RESULTS = "results.json"


class Book:
    """Rows by key, in the order in which they were measured.

    Args:
        folder: where `results.json` lies; made if absent.
        settings: what every row depends on; JSON values.
        facts: machine, versions, commit, command of this run.

    Raises:
        ValueError: the file is unreadable, or was made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], facts: Mapping[str, str]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self._rows: dict[Key, Row] = {}
        self._lines: dict[Key, str] = {}
        self._runs = [dict(facts)]
        path = folder / RESULTS
        if path.exists():
            self._read(path)

    @property
    def rows(self) -> list[Row]:
        """All rows."""
        return list(self._rows.values())

    @property
    def facts(self) -> dict[str, str]:
        """Of the present run."""
        return self._runs[-1]

    def has(self, key: Key) -> bool:
        """Whether that is measured already."""
        return key in self._rows

    def add(self, row: Row) -> None:
        """Keep a row and write the file, whole or not at all."""
        self._keep(row)
        write_text(self.folder / RESULTS, self._encode())

    def _keep(self, row: Row) -> None:
        self._rows[row.key] = row
        self._lines[row.key] = json.dumps(row.to_dict(), allow_nan=False)

    def _encode(self) -> str:
        # A row a line: to be read by eye and by diff.
        head = json.dumps({"settings": self.settings, "runs": self._runs}, allow_nan=False)[:-1]
        return f'{head}, "rows": [\n' + ",\n".join(self._lines.values()) + "\n]}\n"

    def _read(self, path: Path) -> None:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            rows = [read_row(row) for row in data["rows"]]
            settings, runs = dict(data["settings"]), list(data["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"--out: {path} is unreadable ({error}); give another folder") from None
        # as they come back from JSON: tuples are lists there
        now = json.loads(json.dumps(encode_numbers(self.settings)))
        for name in sorted({*settings, *now}):
            if settings.get(name) != now.get(name):
                raise ValueError(
                    f"--out: {self.folder} holds results with {name} = {settings.get(name)!r}, given now: "
                    f"{now.get(name)!r}; give another folder"
                )
        self._runs = [*runs, *self._runs]
        for row in rows:
            self._keep(row)
