"""Knobs in words, and values of them in the options of a method."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keystep.errors import unknown
from keystep.methods.knobs import Choice, Knob, Range

if TYPE_CHECKING:
    from optuna import Trial

ALLOWED = "NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=VALUE,VALUE,..."
DIGITS = 4  # of a tried number: policy files are read by people


def parse_knobs(texts: Sequence[str]) -> dict[str, Knob]:
    """Read `--knob` texts: `threshold=0.05:0.4:log`, `warmup=2:8`, `order=0,1`.

    Raises:
        ValueError: a text is no knob, or a name comes twice.
    """
    knobs: dict[str, Knob] = {}
    for text in texts:
        name, _, values = text.partition("=")
        if name in knobs:
            raise ValueError(f"--knob: {name!r} is given twice")
        try:
            knobs[name] = _parse_range(values) if ":" in values else _parse_choice(values)
        except ValueError as error:
            raise ValueError(f"--knob: given {text!r}, allowed: {ALLOWED} ({error})") from None
    return knobs


def _parse_range(text: str) -> Range:
    low, high, *scale = text.split(":")
    if scale not in ([], ["log"]):
        raise ValueError(f"unknown scale {':'.join(scale)!r}")
    ends = [json.loads(end) for end in (low, high)]
    if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in ends):
        raise ValueError("the ends are numbers")
    return Range(*ends, is_log=bool(scale))


def _parse_choice(text: str) -> Choice:
    return Choice(tuple(_parse_value(value) for value in text.split(",") if value))


def _parse_value(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def suggest(trial: Trial, space: Mapping[str, Knob]) -> dict[str, Any]:
    """Values that an Optuna trial tries, by knob."""
    return {name: _suggest(trial, name, knob) for name, knob in space.items()}


def _suggest(trial: Trial, name: str, knob: Knob) -> Any:
    if isinstance(knob, Choice):
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in knob.values]))
    if knob.is_whole:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.is_log)
    return float(f"{trial.suggest_float(name, knob.low, knob.high, log=knob.is_log):.{DIGITS}g}")


def with_values(options: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Options with values put in.

    Args:
        options: of a method, or a policy spelled out; not changed.
        values: by name; `rules.0.when.threshold` goes down into lists and tables.

    Raises:
        ValueError: a path leads nowhere.
    """
    changed = copy.deepcopy(dict(options))
    for path, value in values.items():
        *parents, name = path.split(".")
        place: Any = changed
        for key in parents:
            place = _enter(place, key, path)
        if parents:
            _enter(place, name, path)
        place[int(name) if isinstance(place, list) else name] = value
    return changed


def _enter(place: Any, key: str, path: str) -> Any:
    parts = dict(enumerate(place)) if isinstance(place, list) else place
    found = {str(name): part for name, part in parts.items()} if isinstance(parts, dict) else {}
    if key not in found:
        raise unknown(f"part of --knob {path!r}", key, found)
    return found[key]
