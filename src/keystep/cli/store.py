"""Finished items of a comparison on disk, so that a second run does only what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keystep.cli.options import to_json
from keystep.cli.results import name_item, save_video
from keystep.media import write_text
from keystep.metrics.outcome import Outcome
from keystep.metrics.quality import Video

SETTINGS, ITEMS = "settings.json", "items"


class Store:
    """A folder with one file for every finished prompt, seed and method.

    Args:
        folder: made if absent.
        settings: what every item depends on; JSON values.
        methods: label -> words that say exactly what ran under it.
        fps: frames per second of the videos.

    Raises:
        ValueError: the folder holds items made with other settings, or is unreadable.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], methods: Mapping[str, str], fps: float
    ) -> None:
        self.folder = folder
        self.fps = fps
        path = folder / SETTINGS
        old_methods = _check_settings(path, settings, methods) if path.exists() else {}
        write_text(path, to_json({"settings": dict(settings), "methods": {**old_methods, **methods}}))

    def load(self, prompt: str, seed: int, method: str) -> Outcome | None:
        """A finished outcome whose video is there, else None."""
        path = self._path(prompt, seed, method)
        if not path.is_file():
            return None
        try:
            outcome = Outcome.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            return None  # a file of another version is made again
        return outcome if (self.folder / outcome.video).is_file() else None

    def save(self, outcome: Outcome, video: Video) -> Outcome:
        """Write the video, then the item: an item on disk is a whole one."""
        saved = save_video(self.folder, outcome, video, self.fps)
        write_text(self._path(outcome.prompt, outcome.seed, outcome.method), to_json(saved.to_dict()))
        return saved

    def _path(self, prompt: str, seed: int, method: str) -> Path:
        return self.folder / ITEMS / f"{name_item(prompt, seed, method)}.json"


def _check_settings(path: Path, settings: Mapping[str, Any], methods: Mapping[str, str]) -> dict[str, str]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        old, old_methods = dict(data["settings"]), dict(data["methods"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"--out: {path} is unreadable; give another folder") from None
    pairs = [(key, old.get(key), settings.get(key)) for key in sorted({*old, *settings})]
    pairs += [(label, old_methods[label], words) for label, words in methods.items() if label in old_methods]
    for key, before, now in pairs:
        if before != now:
            raise ValueError(
                f"--out: {path.parent} holds results with {key} = {before!r}, given now: {now!r}; "
                "give another folder"
            )
    return old_methods
