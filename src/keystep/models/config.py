"""Released config.json files, as arguments of keystep's classes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from keystep.errors import require, unknown


def arguments_for(
    build: Callable[..., Any],
    released: Mapping[str, Any],
    fixed: Mapping[str, Any],
    irrelevant: Collection[str],
) -> dict[str, Any]:
    """The fields of a released config that a class is built with.

    Args:
        build: the class's `__init__`; its parameters are the fields that are kept.
        released: content of a config.json; fields with a leading underscore say who saved it.
        fixed: fields that choose a variant -> the value of the only variant that the class is.
        irrelevant: fields that its outputs do not depend on.

    Raises:
        ValueError: a variant keystep does not have, or a field nobody here knows; names the field.
    """
    kept = set(inspect.signature(build).parameters) - {"self"}
    arguments: dict[str, Any] = {}
    for name, value in released.items():
        if name in fixed:
            require(value == fixed[name], f"config.{name}", value, repr(fixed[name]))
        elif name in kept:
            arguments[name] = value
        elif name not in irrelevant and not name.startswith("_"):
            raise unknown("config field", name, {*kept, *fixed, *irrelevant})
    return arguments
