"""How the tokens of one size of video lie on the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from keystep.errors import require
from keystep.models.spec import PACKED, ModelSpec
from keystep.ranks.group import Group
from keystep.ranks.plans import Cut
from keystep.ranks.shares import cut, shares


class Layout:
    """Shares of the tokens of a frame, and of the text's.

    Args:
        group: the ranks.
        num_places: tokens of a latent frame.
        num_words: tokens of the text; None = it is not dealt out.

    Raises:
        ValueError: more ranks than tokens.
    """

    def __init__(self, group: Group, num_places: int, num_words: int | None) -> None:
        counts = {"a latent frame": num_places, "the text": num_words}
        for name, count in counts.items():
            allowed = f"1 to {count}, as many as {name} has tokens"
            require(count is None or group.size <= count, "ulysses", group.size, allowed)
        self.group = group
        self.places = shares(num_places, group.size)
        self.words = None if num_words is None else shares(num_words, group.size)
        self._tokens: dict[str, list[int]] = {}

    def cut(self, value: Any, how: Cut) -> Any:
        """This rank's part of a tensor, or of each tensor in a tuple; None stays None."""
        if isinstance(value, (tuple, list)):
            return type(value)(self.cut(each, how) for each in value)
        if value is None:
            return None
        if how.is_grid:
            places = value.flatten(how.dim, how.dim + 1)
            return cut(places, how.dim, self.places, self.group.rank).unsqueeze(how.dim + 1)
        sizes = self.places if how.of == "video" else self.words
        assert sizes is not None, "a plan that cuts the text says so of the argument"
        return cut(value, how.dim, sizes, self.group.rank)

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        """The tokens of all ranks, (rows, runs of places, F); the way back from cutting along axis 1."""
        runs = value.unflatten(1, (-1, self.places[self.group.rank]))
        return self.group.all_gather(runs, 2, self.places).flatten(1, 2)

    def tokens(self, site: str, own: int) -> list[int]:
        """How many tokens each rank brings to an attention. The ranks tell each other once."""
        if site not in self._tokens:
            self._tokens[site] = self.group.gather_objects(own)
        return self._tokens[site]


def count_places(spec: ModelSpec, module: nn.Module, arguments: Mapping[str, Any]) -> int:
    """Tokens of a latent frame, from the arguments of a call and the module's config."""
    if spec.latent == PACKED:
        require(arguments.get("height") is not None, "height", None, "rows of the latent, else tokens")
        return arguments["height"] * arguments["width"]
    config: Any = module.config
    patch = config["patch_size"]
    shape = arguments[spec.rows[0]].shape
    rows, columns = patch[-2:] if isinstance(patch, (tuple, list)) else (patch, patch)
    return -(-shape[spec.latent.index("H")] // rows) * -(-shape[spec.latent.index("W")] // columns)
