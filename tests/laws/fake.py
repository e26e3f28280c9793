"""An analytic transformer: its attention features are known functions of (branch, sample, block, time)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from keystep import ModelSpec

SPEC = ModelSpec(
    name="fake",
    transformer="Fake",
    blocks=("blocks",),
    streams=("hidden",),
    exit="last",
    attention={"self": "blocks.{}.attention"},
    residual={"self": "blocks.{}.after"},
    rows=("hidden", "time", "text"),
    guidance="batched:uncond,cond",
)
Feature = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # (text, time, block) -> (rows, 1, 1)


def constant(text: torch.Tensor, time: torch.Tensor, block: int) -> torch.Tensor:
    """Per branch and sample: the text itself."""
    return text + block


def drifting(text: torch.Tensor, time: torch.Tensor, block: int) -> torch.Tensor:
    """Linear in time, another line for each branch, sample and block."""
    return text + block + (0.25 * text + 1.0 + block) * time / 1000


class Attention(nn.Module):
    def __init__(self, index: int, feature: Feature) -> None:
        super().__init__()
        self.index, self.feature, self.count = index, feature, 0

    def forward(self, hidden: torch.Tensor, text: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return self.feature(text[:, None, None], time[:, None, None], self.index).expand_as(hidden).clone()


class Block(nn.Module):
    def __init__(self, index: int, feature: Feature) -> None:
        super().__init__()
        self.attention = Attention(index, feature)
        self.after = nn.Identity()
        self.count = 0
        self.seen: list[torch.Tensor] = []  # what attention gave, computed or predicted

    def forward(self, hidden: torch.Tensor, text: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        self.count += 1
        value = self.attention(hidden, text, time)
        self.seen.append(value.clone())
        return self.after(hidden + value)


class Fake(nn.Module):
    """Hidden state: (rows, T * H * W, C) zeros plus what the blocks add; output: that, as a video."""

    def __init__(self, feature: Feature = constant, num_blocks: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(i, feature) for i in range(num_blocks))
        self.last = nn.Identity()
        self.num_calls = 0
        self.num_rows: list[int] = []

    def forward(
        self, hidden: torch.Tensor, time: torch.Tensor, text: torch.Tensor, return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        """hidden (rows, C, T, H, W), time (rows,), text (rows,)."""
        self.num_calls += 1
        self.num_rows.append(hidden.shape[0])
        tokens = (hidden * 0).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens, text, time)
        return (self.last(tokens).transpose(1, 2).unflatten(2, hidden.shape[2:]),)


def value_of(branch: str, sample: int) -> float:
    """The text of a branch and sample: all different, small whole numbers (exact in float32)."""
    return (10.0 if branch == "cond" else 40.0) + sample


LATENT = (2, 2, 6, 7)  # C, T, H, W


def call(model: nn.Module, branches: tuple[str, ...], batch: int, time: float) -> dict[str, torch.Tensor]:
    """One call with these branches, branch-major; outputs by branch."""
    rows = [value_of(branch, sample) for branch in branches for sample in range(batch)]
    (output,) = model(torch.zeros(len(rows), *LATENT), torch.full((len(rows),), time), torch.tensor(rows))
    return dict(zip(branches, output.chunk(len(branches)), strict=True))


def evaluate(
    model: nn.Module, layout: str, batch: int, time: float, guided: bool = True
) -> dict[str, torch.Tensor]:
    """One evaluation in a layout such as "batched:uncond,cond"; outputs by branch."""
    kind, _, order = layout.partition(":")
    names = tuple(order.split(",")) if guided else ("cond",)
    if kind == "batched":
        return call(model, names, batch, time)
    return {name: call(model, (name,), batch, time)[name] for name in names}


def expected(feature: Feature, branch: str, batch: int, time: float, num_blocks: int = 3) -> torch.Tensor:
    """The output a plain model gives, (batch,)."""
    text = torch.tensor([value_of(branch, sample) for sample in range(batch)])
    return sum((feature(text, torch.tensor(time), i) for i in range(num_blocks)), torch.zeros(batch))
