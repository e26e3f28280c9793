"""Write files whole or not at all, and find out early whether a place can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_MODE = 0o666  # what `open` asks for, before the umask


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it after an exception.

    A reader, or a second run after an interrupt, sees the old file or the whole new one.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept: muxers choose their format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, DEFAULT_MODE & ~_read_umask())  # mkstemp's files are private
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all.

    Raises:
        OSError: the folder cannot be made or written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def check_writable(path: str | Path, is_folder: bool = False) -> None:
    """Refuse a place that cannot be written, without creating anything.

    Args:
        path: the file, or the folder, that will be written later.
        is_folder: whether `path` is to be a folder.

    Raises:
        ValueError: a folder is in the way of a file or the other way round, or permission is missing.
    """
    path = Path(path)
    if path.exists() and path.is_dir() != is_folder:
        raise ValueError(f"{path} is {'a file' if is_folder else 'a folder'}; give another name")
    nearest = path if is_folder else path.parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be written: {nearest} is not a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"{path} cannot be written: no permission in {nearest}")


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
