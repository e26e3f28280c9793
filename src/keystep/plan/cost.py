"""What one evaluation costs: operations, what is held, and what has to cross between GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

AttentionCall = tuple[torch.Size, torch.Size]  # shapes of queries and keys: (rows, heads, tokens, head width)


@dataclass(frozen=True)
class Cost:
    """One evaluation.

    Attributes:
        flops: operations.
        cache_bytes: the most that is held for reuse in it.
        skipped: the rules that skipped.
        calls: how often an attention ran, by how far it looks: over the `"video"`, within a `"frame"`, along
            the frames at one place (`"time"`), at the `"text"`; and the model was given a `"latent"` and gave
            an `"output"`.
        values: likewise, values in the queries of all of them (for text in the keys), or in the tensors.
    """

    flops: int
    cache_bytes: int = 0
    skipped: tuple[str, ...] = ()
    calls: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)

    def grow(self, deeper: Cost, more: int) -> Cost:
        """The cost with `more` further blocks, from that with one further block."""

        def extend(shallow: int, deep: int) -> int:
            return shallow + more * (deep - shallow)

        return Cost(
            extend(self.flops, deeper.flops),
            extend(self.cache_bytes, deeper.cache_bytes),
            self.skipped,
            Counter({reach: extend(count, deeper.calls[reach]) for reach, count in self.calls.items()}),
            Counter({reach: extend(count, deeper.values[reach]) for reach, count in self.values.items()}),
        )


def tally(
    attention: Iterable[AttentionCall],
    latents: Sequence[torch.Size],
    outputs: Sequence[torch.Size],
    num_frames: int,
) -> tuple[Counter[str], Counter[str]]:
    """Calls and values of an evaluation, as in `Cost`.

    Args:
        attention: calls of the attention kernel.
        latents: shapes of what the model was given, rows first.
        outputs: shapes of what it returned, likewise.
        num_frames: latent frames.
    """
    calls, values = Counter[str](), Counter[str]()

    def add(reach: str, shape: torch.Size) -> None:
        calls[reach] += 1
        values[reach] += shape.numel()

    for latent in latents:
        add("latent", latent)
    for output in outputs:
        add("output", output)
    videos = {latent[0] for latent in latents}
    for query, key in attention:
        if query[2] != key[2]:
            add("text", key)
        elif query[0] in videos:
            add("video", query)
        else:
            add("time" if query[2] == num_frames else "frame", query)
    return calls, values
