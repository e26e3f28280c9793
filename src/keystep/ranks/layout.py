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
        self._masks: tuple[Any, Any] = (None, None)

    def cut(self, value: Any, how: Cut) -> Any:
        """This rank's part of a tensor, of each tensor in a tuple, or of a number of tokens."""
        if isinstance(value, (tuple, list)):
            return type(value)(self.cut(each, how) for each in value)
        if isinstance(value, int):
            return value // sum(self.places) * self.places[self.group.rank]
        if value is None or value.ndim <= how.dim:
            return value
        if how.is_grid:
            return self._cut(value.flatten(how.dim, how.dim + 1), how.dim, self.places).unsqueeze(how.dim + 1)
        if how.of == "video":
            return self._cut(value, how.dim, self.places)
        assert self.words is not None, "known wherever a plan cuts the text"
        if how.of == "text":
            return self._cut(value, how.dim, self.words)
        num_words = sum(self.words)
        text, video = value.split([num_words, value.shape[how.dim] - num_words], dim=how.dim)
        parts = [self._cut(text, how.dim, self.words), self._cut(video, how.dim, self.places)]
        return torch.cat(parts, dim=how.dim)

    def _cut(self, value: torch.Tensor, dim: int, sizes: list[int]) -> torch.Tensor:
        return cut(value, dim, sizes, self.group.rank)

    def gather(self, value: torch.Tensor) -> torch.Tensor:
        """The tokens of all ranks, (rows, runs of places, F); the way back from cutting along axis 1."""
        runs = value.unflatten(1, (-1, self.places[self.group.rank]))
        return self.group.all_gather(runs, 2, self.places).flatten(1, 2)

    def tokens(self, site: str, own: int) -> list[int]:
        """How many tokens each rank brings to an attention. The ranks tell each other once."""
        if site not in self._tokens:
            self._tokens[site] = self.group.gather_objects(own)
        return self._tokens[site]

    def whole_mask(self, mask: torch.Tensor, num_tokens: list[int]) -> torch.Tensor:
        """The mask of all ranks' keys, in the order in which their tokens meet.

        Blocks are given one and the same mask, which is gathered for the first of them.
        """
        if self._masks[0] is not mask:
            self._masks = (mask, self.group.all_gather(mask, mask.ndim - 1, num_tokens))
        return self._masks[1]

    def close_call(self) -> None:
        """A call of the transformer is over: drop what was kept for it."""
        self._masks = (None, None)


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
