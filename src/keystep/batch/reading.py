"""Read a list of items; a bad line is a problem of its own, and the others are read all the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from keystep.batch.item import FIELDS, ID_RULE, ITEM, Item
from keystep.errors import require, unknown

JSON_LINES, TEXT = ".jsonl", ".txt"
SLUG_LENGTH, DIGEST_LENGTH = 40, 10


@dataclass
class Reading:
    """What a file holds.

    Attributes:
        items: line number, from 1 -> the item.
        problems: line number -> what is wrong there.
    """

    items: dict[int, Item] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


def read_items(path: Path, defaults: Mapping[str, Any]) -> Reading:
    """Read `.jsonl`, an object a line, or `.txt`, a prompt a line (empty lines and # comments left out).

    Args:
        path: the file.
        defaults: fields of `Item` for lines that leave them out; a line that names a method does not get the
            default's options.

    Raises:
        ValueError: the file is of another kind or cannot be read, or holds no line at all.
    """
    require(path.suffix.lower() in (JSON_LINES, TEXT), "prompts", str(path), "a .jsonl or a .txt file")
    reading = Reading()
    lines_by_id: dict[str, int] = {}
    for number, line in _read_lines(path):
        try:
            given = {"prompt": line.decode("utf-8").strip()} if _is_text(path) else _parse(line)
            item = _complete(given, defaults)
        except ValueError as error:
            reading.problems[number] = str(error)
            continue
        # Some file systems know no difference between capitals and small letters.
        first = lines_by_id.setdefault(item.id.casefold(), number)
        if first != number:
            reading.problems[number] = f"id: {item.id!r} is that of line {first} already; give another id"
        else:
            reading.items[number] = item
    require(bool(reading.items or reading.problems), "prompts", str(path), "a file with a line at least")
    return reading


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == TEXT


def _read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")  # what some editors put first
    except OSError as error:
        raise ValueError(f"prompts: {path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(data.split(b"\n"), start=1):
        text = line.strip()
        if text and not (_is_text(path) and text.startswith(b"#")):
            yield number, text


def _parse(line: bytes) -> dict[str, Any]:
    try:
        given = json.loads(line, object_pairs_hook=_refuse_doubles, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8: {error.reason} at byte {error.start + 1}") from None
    if not isinstance(given, dict):
        raise ValueError(f"given {json.dumps(given)[:SLUG_LENGTH]}, allowed: an object with a prompt")
    for name in given:
        if name not in FIELDS:
            raise unknown("field", name, FIELDS)
    return given


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name}: given twice")
    return dict(pairs)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"given {name}, allowed: finite numbers")


def _complete(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Item:
    """The item of a line: what it leaves out is the batch's default, its id the digest of what it says."""
    merged = {**defaults, **given}
    if "method" in given:
        merged["options"] = given.get("options", {})
    elif isinstance(given.get("options"), dict):
        merged["options"] = {**defaults.get("options", {}), **given["options"]}
    merged.setdefault("id", _name(given))
    try:
        # From JSON, for strict validation takes no mapping in place of a dataclass.
        return ITEM.validate_json(json.dumps(merged))
    except ValidationError as error:
        raise ValueError(_explain(error, merged)) from None


def _name(given: Mapping[str, Any]) -> str:
    """Of the line alone, not of its number: lines may be added and moved between two runs."""
    slug = re.sub(r"[^a-z0-9]+", "-", str(given.get("prompt")).lower()).strip("-")[:SLUG_LENGTH]
    text = json.dumps(given, sort_keys=True)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LENGTH]
    return f"{slug}-{digest}".lstrip("-")


def _explain(error: ValidationError, given: Mapping[str, Any]) -> str:
    problem = error.errors()[0]
    if not problem["loc"]:
        return "given half of a surrogate pair, allowed: characters of Unicode"
    name = str(problem["loc"][0])
    if problem["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{name}: missing; give it in the line or for the whole batch"
    return f"{name}: given {given[name]!r}, allowed: {ID_RULE if name == 'id' else problem['msg']}"
