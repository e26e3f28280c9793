"""Finding files: the nearest one counts, in the same folder or else in its parent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import safe_open


def nearest(folder: Path, *patterns: str) -> list[Path]:
    """Files that match a pattern, from the nearest folder that has any; earlier patterns first."""
    for place in (folder, folder.parent):
        found = [path for pattern in patterns for path in sorted(place.glob(pattern))]
        if found:
            return list(dict.fromkeys(found))
    return []


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def keys_of(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file."""
    with safe_open(str(path), "pt") as file:
        return set(file.keys())


def folders(root: Path) -> Iterator[tuple[Path, str]]:
    """Every folder under `root` with its name relative to it, the root's own first (empty name)."""
    yield root, ""
    for folder in sorted(path for path in root.rglob("*") if path.is_dir()):
        yield folder, folder.relative_to(root).as_posix() + "/"
