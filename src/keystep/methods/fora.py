"""FORA: attention and MLP outputs are computed at regular intervals and held in between.

"FORA: Fast-Forward Caching in Diffusion Transformer Acceleration", arXiv 2407.01425, section 3 (static
caching); reference code prathebaselva/FORA, whose commands use an interval of 3.

Differs from the reference in: cross-attention, which its first model does not have, is held like the rest;
histories belong to one generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from keystep.errors import require
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import Attention, Mlp, Site
from keystep.when import Every

PARTS: tuple[Site, ...] = (Attention(), Attention(("cross",)), Mlp())


@dataclass(frozen=True)
class FORA:
    """Computes one evaluation of several, the first among them; holds every attention and MLP output.

    Attributes:
        interval: compute one evaluation of so many (higher = faster).
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache). Between full evaluations so little
            is computed that this saves next to nothing, and its own full evaluations are further ones.
    """

    interval: int = 3
    cfg: bool = False

    citation: ClassVar[str] = "FORA (2024), https://arxiv.org/abs/2407.01425"

    def __post_init__(self) -> None:
        require(self.interval >= 2, "fora.interval", self.interval, "evaluations >= 2")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        when = Every(self.interval, phase=1)
        policy = Policy(tuple(Rule(site, when, Hold()) for site in PARTS), "fora", is_partial=True)
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy
