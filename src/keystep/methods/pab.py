"""PAB: attention outputs are broadcast to following evaluations, each kind as far as it allows.

"Real-Time Video Generation with Pyramid Attention Broadcast", arXiv 2408.12588, section 3.2; reference code
NUS-HPC-AI-Lab/VideoSys, core/pab/ and the pipelines' configurations (with the MLPs' table, which the paper
does not have).

Differs from the reference in: the timesteps of the MLPs' table are met by the nearest evaluation, where the
reference needs them exactly and does nothing at other numbers of steps; Vchitect's three attentions are one
module here, which is broadcast as far as the one that allows least; both branches of a pipeline with separate
calls have counters of their own.

Models without a configuration of their own get a window that is a part of the run: the usual one, given in
timesteps of an even schedule, would leave most of a shifted one (Wan, LTX ...) alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from keystep.errors import require, unknown
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import Attention, Mlp
from keystep.when import After, Controller, Every, Window

PART_OF_RUN = (0.2, 0.9)  # what timesteps 800 to 100, the usual window, are of an even schedule
NUM_MLP_SKIPS = 2  # evaluations after each listed one, in all of the reference's tables


@dataclass(frozen=True)
class Preset:
    """Constants of one model.

    Attributes:
        window: timesteps between which attention is broadcast, both excluded; None = `PART_OF_RUN`.
        periods: kind of attention -> one evaluation of so many is computed.
        mlp_at: timesteps whose MLP outputs serve the next two evaluations.
        mlp_blocks: so many blocks at the begin of the stack, in running order.
    """

    window: tuple[float, float] | None
    periods: dict[str, int]
    mlp_at: tuple[float, ...] = ()
    mlp_blocks: int = field(default=0)


# VideoSys, one pipeline each. It counts blocks in each of two alternating lists; running order has twice as
# many.
PRESETS: dict[str, Preset] = {
    "opensora": Preset((450, 930), {"spatial": 2, "temporal": 4, "cross": 6}, (864, 788, 676), 2 * 5),
    "opensora-plan": Preset(
        (100, 850), {"spatial": 2, "temporal": 4, "cross": 6}, tuple(range(738, 425, -24)), 2 * 7
    ),
    "latte": Preset(
        (100, 800), {"spatial": 2, "temporal": 3, "cross": 6}, tuple(range(720, 399, -80)), 2 * 5
    ),
    "cogvideox": Preset((100, 850), {"joint": 2}),
    "vchitect": Preset((100, 800), {"joint": 2}),
    # Periods of the paper, but for temporal attention: held as briefly as spatial attention it gives the
    # better video at equal compute on the small model that has it (bench/LOG.md).
    "default": Preset(None, {"joint": 2, "self": 2, "spatial": 2, "temporal": 2, "cross": 6}),
}


@dataclass(frozen=True)
class PAB:
    """Holds attention outputs inside a window of timesteps, cross-attention longest, MLPs at some timesteps.

    Attributes:
        preset: constants of which model; "auto" = those of the model at hand, "default" for unknown ones.
        stretch: factor on all periods, rounded (higher = faster).
        mlp: whether MLP outputs are held too, where the preset has a table for them.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    preset: str = "auto"
    stretch: float = 1.0
    mlp: bool = True
    cfg: bool = False

    citation: ClassVar[str] = "PAB (ICLR 2025), https://arxiv.org/abs/2408.12588"

    def __post_init__(self) -> None:
        if self.preset not in ("auto", *PRESETS):
            raise unknown("pab preset", self.preset, ("auto", *PRESETS))
        require(self.stretch > 0, "pab.stretch", self.stretch, "a factor > 0")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        preset = PRESETS.get(model if self.preset == "auto" else self.preset, PRESETS["default"])
        rules = [
            Rule(
                Attention((kind,)),
                _when(preset, max(1, round(period * self.stretch)), num_evaluations),
                Hold(),
            )
            for kind, period in preset.periods.items()
        ]
        if self.mlp and preset.mlp_at:
            when = After(preset.mlp_at, NUM_MLP_SKIPS)
            rules.append(Rule(Mlp(last=preset.mlp_blocks - 1), when, Hold()))
        # kinds of attention that a model lacks, or that its spec does not name, are left out
        policy = Policy(tuple(rules), "pab", is_partial=True)
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy


def _when(preset: Preset, period: int, num_evaluations: int) -> Controller:
    """One evaluation of `period` inside the window, counted from the begin of the run."""
    if preset.window is not None:
        return Window(period, *preset.window)
    begin, end = (round(part * num_evaluations) for part in PART_OF_RUN)
    return Every(period, start=begin + 1, stop=end, phase=1)
