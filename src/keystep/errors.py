"""One way to phrase an error: the field, what was given, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def require(is_valid: bool, field: str, given: object, allowed: str) -> None:
    """Raise `ValueError("field: given ..., allowed ...")` unless `is_valid`."""
    if not is_valid:
        raise ValueError(f"{field}: given {given!r}, allowed: {allowed}")


def unknown(kind: str, given: str, known: Iterable[str], listed: str = "") -> ValueError:
    """A `ValueError` for a name that does not exist, with near misses and the whole list or `listed`."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ValueError(f"unknown {kind} {given!r}{hint} (known: {listed or ', '.join(names) or 'none'})")
