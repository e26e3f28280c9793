"""The file of a calibration: every run as it is done, so that an interrupted one goes on, then the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keystep.media import write_text


class Record:
    """A calibration on disk.

    Args:
        path: the file; what is there already is gone on with.
        method: what is calibrated.
        model: `ModelSpec.name` of the model.
        settings: what every run depends on; JSON values.

    Raises:
        ValueError: the file is of another calibration, or is unreadable.
    """

    def __init__(self, path: Path, method: str, model: str, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.head = {"method": method, "model": model, "settings": json.loads(json.dumps(dict(settings)))}
        self.runs: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.runs = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            head, runs = {key: data[key] for key in self.head}, dict(data["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"--out: {self.path} is unreadable ({error}); give another file") from None
        for key in (*self.head, *self.head["settings"]):
            before = head.get(key, head["settings"].get(key))
            now = self.head.get(key, self.head["settings"].get(key))
            if key != "settings" and before != now:
                raise ValueError(
                    f"--out: {self.path} was made with {key} = {before!r}, given now: {now!r}; give another "
                    "file"
                )
        return runs

    def of(self, prompt: str, seed: int) -> dict[str, Any]:
        """What has been measured for a prompt and seed; change it, then `save`."""
        return self.runs.setdefault(f"{seed} {prompt}", {})

    def save(self, num_evaluations: int | None = None, values: Any = None) -> None:
        """Write everything, whole or not at all; with the result when there is one."""
        data = {**self.head, "num_evaluations": num_evaluations, "values": values, "runs": self.runs}
        write_text(self.path, json.dumps(data, indent=1, allow_nan=False) + "\n")
