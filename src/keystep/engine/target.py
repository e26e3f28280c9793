"""What is accelerated: the transformers of a pipeline."""

from __future__ import annotations

from typing import Any

from torch import nn


def find_transformers(target: Any) -> dict[str, nn.Module]:
    """The transformers of a pipeline by attribute name, or a bare one.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(target, nn.Module):
        return {"transformer": target}
    names = ("transformer", "transformer_2")
    found = {name: getattr(target, name, None) for name in names}
    models = {name: module for name, module in found.items() if isinstance(module, nn.Module)}
    if not models:
        raise ValueError(
            f"pipe: {type(target).__name__} has no transformer to accelerate (looked for {', '.join(names)})"
        )
    return models
