"""Cases that keystep cannot run: listed with the reason, so that a folder's content is accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .report import Case, Result, not_run

NATIVE = "a case of a native model, which keystep does not run yet"
VAE = "a VAE, which caching does not touch"


def find(folder: Path, label: str, taken: set[Path]) -> Iterator[Case]:
    """What looks like a case and was not taken by any other kind."""
    indexed = set(folder.glob("*.safetensors")) if (folder / "index.json").exists() else set()
    for path in sorted(indexed | set(folder.glob("vae_*.safetensors"))):
        # a case may be called `..._smooth_weights`
        if not path.name.startswith(("weights", "vae_weights")) and path not in taken:
            yield Case(label + path.stem, path, run)


def run(name: str, path: Path) -> Iterator[Result]:
    """The reason."""
    yield not_run(name, VAE if "vae" in f"{path.parent.name}/{path.name}" else NATIVE)
