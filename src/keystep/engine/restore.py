"""Taking changes back: every attribute keystep sets on somebody else's object goes through here."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any


def replace_attribute(stack: ExitStack, owner: Any, name: str, value: object) -> None:
    """Set an instance attribute until the stack closes; then put back exactly what was (or was not) there.

    An attribute that somebody else has set in the meantime (an offload hook, say) is theirs and stays.
    """
    attributes = vars(owner)
    missing = object()
    before = attributes.get(name, missing)

    def restore() -> None:
        if attributes.get(name) is not value:
            return
        if before is missing:
            del attributes[name]
        else:
            attributes[name] = before

    attributes[name] = value
    stack.callback(restore)
