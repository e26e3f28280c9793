"""From the words of the command line (`--method`, `--set`, `--policy`) to a method, all checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PLAIN_NAMES = ("none", "plain")
CUSTOM_NAME = "custom"  # a policy file that spells its rules out
POLICY_SUFFIXES = (".toml", ".yaml", ".yml", ".json")
_WORDS = {"true": True, "false": False, "none": None, "null": None}


def parse_assignments(assignments: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Read `key=value` texts of `option`; values are numbers, true, false, none, JSON, or else text.

    Raises:
        ValueError: a text is no assignment, or a key comes twice.
    """
    options: dict[str, Any] = {}
    for text in assignments:
        key, separator, value = text.partition("=")
        key = key.strip()
        if not separator or not key:
            raise ValueError(f"{option}: given {text!r}, allowed: key=value")
        if key in options:
            raise ValueError(f"{option}: {key!r} is given twice")
        options[key] = _parse_value(value.strip())
    return options


def read_policy_file(path: Path) -> dict[str, Any]:
    """Read a file with a `method` key and that method's options.

    Raises:
        ValueError: the file is missing, of another format, broken, or names no method.
    """
    if path.suffix.lower() not in POLICY_SUFFIXES:
        raise ValueError(
            f"--policy: given {str(path)!r}, allowed: a file ending in {', '.join(POLICY_SUFFIXES)}"
        )
    try:
        data = _parse_file(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--policy: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # what TOML, JSON and Unicode errors are
        raise ValueError(f"--policy: {path} is broken: {error}") from None
    if not isinstance(data, Mapping) or not isinstance(data.get("method"), str):
        raise ValueError(f'--policy: {path} names no method; it needs a line like method = "adacache"')
    return {str(key): value for key, value in data.items()}


def build_method(method: str | None, assignments: Sequence[str], policy: Path | None) -> Any:
    """The method object that `keystep.accelerate` takes, or None for plain generation.

    Arguments as `read_method`.

    Raises:
        ValueError: neither or both are given, or a name or an option is wrong.
    """
    return build_named(*read_method(method, assignments, policy))


def read_method(
    method: str | None, assignments: Sequence[str], policy: Path | None
) -> tuple[str, dict[str, Any]]:
    """The name of a method and its options, not checked yet.

    Args:
        method: a name; `none` or `plain` accelerates nothing.
        assignments: `key=value` texts of `--set`, which also override a policy file's options.
        policy: a policy file, instead of `method`.

    Raises:
        ValueError: neither or both are given, or one cannot be read.
    """
    options = parse_assignments(assignments)
    if (method is None) == (policy is None):
        raise ValueError("--method, --policy: give one of them (`keystep methods` lists the methods)")
    if policy is not None:
        options = read_policy_file(policy) | options
    name = options.pop("method") if method is None else method
    return name, options


def build_named(name: str, options: Mapping[str, Any]) -> Any:
    """The method object for a name and its options, or None for plain generation.

    Raises:
        ValueError: a name or an option is wrong.
    """
    if name in PLAIN_NAMES:
        if options:
            raise ValueError(f"method {name!r} takes no options; given: {', '.join(options)}")
        return None
    if name == CUSTOM_NAME:
        from keystep.serialize import from_data

        return from_data({"type": "Policy", **options})
    from keystep.methods import build

    return build(name, **options)


def build_methods(names: str, policies: Sequence[Path]) -> dict[str, Any]:
    """Methods to compare: comma-separated names, then policy files under their stems.

    Raises:
        ValueError: none or two of one label are given, or a name or an option is wrong.
    """
    entries = [(name.strip(), None) for name in names.split(",") if name.strip()]
    entries += [(path.stem, path) for path in policies]
    methods: dict[str, Any] = {}
    for label, path in entries:
        if label in PLAIN_NAMES:
            raise ValueError(f"--methods: {label!r} is always there as the reference; leave it out")
        if label in methods:
            raise ValueError(f"--methods, --policy: {label!r} is given twice")
        methods[label] = build_method(label if path is None else None, (), path)
    if not methods:
        raise ValueError("--methods: give at least one method or --policy file")
    return methods


def _parse_value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _parse_file(path: Path, text: str) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return json.loads(text)
    if suffix == ".toml":
        return _load_toml(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _load_toml(text: str) -> Any:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)
