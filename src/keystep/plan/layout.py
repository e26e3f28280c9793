"""Ways to spread one video over GPUs, and what a GPU sends in each of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import ceil

from keystep.plan.cost import Cost
from keystep.ranks.plans import Exchange
from keystep.what import Guidance

# Kind of exchange -> reach of the attention that needs it, all-to-alls, and what they carry in sizes of the
# queries: the hidden state there and back, or queries, keys and values in one and the result back.
ALL_TO_ALLS: dict[Exchange, tuple[tuple[str, ...], int, int]] = {
    "rows": (("frame",), 2, 2),
    "heads": (("frame", "video"), 2, 4),
}
NUM_BRANCHES = 2


@dataclass(frozen=True)
class Traffic:
    """What the GPU that sends most sends in an evaluation; to each other GPU directly.

    Attributes:
        num_collectives: of any kind.
        num_values: times the bytes of a value = bytes.
    """

    num_collectives: float = 0
    num_values: float = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.num_collectives + other.num_collectives, self.num_values + other.num_values)


@dataclass(frozen=True)
class Layout:
    """A way to spread one video over GPUs.

    Attributes:
        ulysses: GPUs over which the tokens of every frame are dealt out.
        splits_guidance: whether each guidance branch has so many of its own.
    """

    ulysses: int
    splits_guidance: bool = False

    @property
    def num_gpus(self) -> int:
        """GPUs in all."""
        return self.ulysses * (NUM_BRANCHES if self.splits_guidance else 1)

    @property
    def name(self) -> str:
        """As it is printed."""
        parts = [f"cfg {NUM_BRANCHES}"] * self.splits_guidance + [f"ulysses {self.ulysses}"] * (
            self.ulysses > 1
        )
        return " x ".join(parts) or "one GPU"

    def share(self, tokens_per_frame: int) -> float:
        """The part of all work that the busiest GPU has; the others wait for it."""
        share = ceil(tokens_per_frame / self.ulysses) / tokens_per_frame
        return share / NUM_BRANCHES if self.splits_guidance else share

    def traffic(self, cost: Cost, guidance: Guidance, exchanges: Collection[Exchange]) -> Traffic:
        """What is sent in an evaluation of this cost, where everything divides evenly.

        Args:
            cost: of the evaluation, on one GPU.
            guidance: layout of the model's calls.
            exchanges: how its attentions are exchanged.
        """
        traffic = Traffic()
        if self.ulysses > 1:
            traffic = self._shard(cost, guidance, exchanges)
        if self.splits_guidance and cost.calls["output"]:
            # latents of the conditional branch for the other one, and outputs for each other
            own = (cost.values["latent"] + cost.values["output"]) / NUM_BRANCHES
            traffic += Traffic(2, own)
        return traffic

    def _shard(self, cost: Cost, guidance: Guidance, exchanges: Collection[Exchange]) -> Traffic:
        others = self.ulysses - 1
        # both branches in one call, or the calls of its own branch only
        is_apart = self.splits_guidance and guidance.kind == "separate"
        calls_of_all = NUM_BRANCHES if is_apart else 1
        values_of_all = NUM_BRANCHES if self.splits_guidance else 1

        def send(reaches: Collection[str], num_collectives: int, num_values: float) -> Traffic:
            calls = sum(cost.calls[reach] for reach in reaches) / calls_of_all
            values = sum(cost.values[reach] for reach in reaches) / values_of_all
            return Traffic(num_collectives * calls, num_values * values)

        # the first GPU's latents count, and everyone has the whole output in the end
        traffic = send(["latent"], 1, others) + send(["output"], 1, others / self.ulysses)
        if "keys" in exchanges:
            traffic += send(["text"], 1, 2 * others / self.ulysses)
        for exchange in exchanges:
            reaches, num_collectives, sizes = ALL_TO_ALLS.get(exchange, ((), 0, 0))
            traffic += send(reaches, num_collectives, sizes * others / self.ulysses**2)
        return traffic


def layouts(num_gpus: int) -> list[Layout]:
    """The ways to use so many GPUs."""
    whole = [Layout(num_gpus)]
    return whole if num_gpus % NUM_BRANCHES else [*whole, Layout(num_gpus // NUM_BRANCHES, True)]
