"""TeaCache: the timestep-modulated input of the model tells how much its output will change.

"Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", arXiv 2411.19108, sections 3.2 and
3.3 (eq. 4 to 7); reference code ali-vilab/TeaCache, TeaCache4*/ and, for Open-Sora, Latte and Open-Sora-Plan,
eval/teacache/.

Built as the reference code, which measures the normalised and modulated input of the first block's attention;
on CogVideoX and Wan the embedded timestep instead, so that the schedule there depends on nothing but the
sampler. Differs in: the conditional branch and the most restless sample of a batch decide, where the
reference pools batched branches and lets separate ones decide each for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from keystep.errors import require, unknown
from keystep.how import Hold
from keystep.methods.cfg import add_cfg
from keystep.policy import Policy, Rule
from keystep.what import AttentionInput, Span, TimeEmbedding
from keystep.when import Accumulate, RelativeChange


@dataclass(frozen=True)
class Preset:
    """What is measured, the polynomial (highest power first) and the slower published threshold."""

    indicator: Literal["input", "time"]
    polynomial: tuple[float, ...]
    threshold: float = 0.1


# Reference code of each model; the faster published thresholds are .2 but for Mochi's .09 and LTX's .05.
PRESETS: dict[str, Preset] = {
    "opensora": Preset("input", (217.546007, -118.329252, 26.8662585, -0.0459364272, 0.048442624)),
    "latte": Preset("input", (-2464.34137, 308.044764, 80.7447667, -4.11385132, 0.111001402)),
    "opensora-plan": Preset("input", (205943.668, -14875.9286, 306.085986, 1.31418080, 0.00239658469)),
    "cogvideox": Preset("time", (-31.0658903, 25.4732368, -5.92380459, 1.75769064, -0.00361568434)),
    "cogvideox-5b": Preset("time", (-1538.80483, 843.202495, -134.363087, 7.97131516, -0.0523162339)),
    "cogvideox-1.5": Preset("time", (250.210439, -165.061612, 35.7804877, -0.781551492, 0.0358559703)),
    "wan": Preset("time", (2396.76752, -1311.10545, 201.331979, -8.29855975, 0.137887774), 0.05),
    "wan-14b": Preset(
        "time", (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404), 0.14
    ),
    "hunyuanvideo": Preset("input", (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896)),
    "mochi": Preset("input", (-3512.41319, 811.675948, -60.9400215, 2.42429681, 0.00305291719), 0.06),
    "ltx": Preset("input", (21.4700694, -12.8016453, 2.31279151, 0.792487521, 0.00969274326), 0.03),
    # The change as it is, for models nobody has fitted a polynomial for.
    "plain": Preset("input", (1.0, 0.0)),
}
# Presets of other members of a family; the one under the family's name is the smallest's.
SIBLINGS = {"cogvideox": ("cogvideox-5b", "cogvideox-1.5"), "wan": ("wan-14b",)}


@dataclass(frozen=True)
class TeaCache:
    """Skips the whole stack while the input's changes, weighed by a fitted polynomial, add up to little.

    Attributes:
        threshold: sum of changes at which it is computed (higher = faster); 0 = the preset's.
        preset: whose polynomial; "auto" = that of the model at hand (of a family's smallest member), and
            "plain", the change as it is, for models without one.
        cfg: whether the unconditional branch is rebuilt too (CFG-Cache).
    """

    threshold: float = 0.0
    preset: str = "auto"
    cfg: bool = False

    citation: ClassVar[str] = "TeaCache (CVPR 2025), https://arxiv.org/abs/2411.19108"

    def __post_init__(self) -> None:
        if self.preset not in ("auto", *PRESETS):
            raise unknown("teacache preset", self.preset, ("auto", *PRESETS))
        require(self.threshold >= 0, "teacache.threshold", self.threshold, "0 (the preset's) or a sum > 0")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        preset = PRESETS.get(model if self.preset == "auto" else self.preset, PRESETS["plain"])
        probe = TimeEmbedding() if preset.indicator == "time" else AttentionInput()
        change = RelativeChange(probe, since="previous")
        when = Accumulate(self.threshold or preset.threshold, change, preset.polynomial)
        policy = Policy((Rule(Span(), when, Hold()),), "teacache", self._notes(model))
        return add_cfg(policy, model, num_evaluations) if self.cfg else policy

    def _notes(self, model: str) -> tuple[str, ...]:
        if self.preset != "auto":
            return ()
        if model in SIBLINGS:
            names = " or ".join(repr(name) for name in SIBLINGS[model])
            return (f"polynomial of the smallest {model}; for others set preset to {names}",)
        if model not in PRESETS:
            return (f"no polynomial is known for {model}, the change is taken as it is",)
        return ()
