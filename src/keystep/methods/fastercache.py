"""FasterCache: attention outputs extrapolated, the unconditional branch rebuilt from the conditional one.

"FasterCache: Training-Free Video Diffusion Model Acceleration with High Quality", arXiv 2410.19355, sections
3.2 (dynamic feature reuse) and 3.3 (CFG-Cache); reference code Vchitect/FasterCache@02d05ef, scripts/*.

Differs from the reference in: histories are kept per branch, and a reuse needs a fresh entry for every active
branch (`max_age`), where the reference mixes conditional and unconditional features; the conditional branch
is the one that is computed, also on CogVideoX; no transform on skipped evaluations; nothing stored is ever
multiplied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from keystep.errors import require, unknown
from keystep.how import Constant, FrequencyBands, Gain, Hold, Linear, Ramp
from keystep.policy import Policy, Rule
from keystep.what import Attention, Branch, Mlp
from keystep.when import Every

MIN_ENTRIES = 2  # computed evaluations before a reuse, whatever a shift says
MIN_ATTENTION_START = 6  # two computed entries and a little settling before the first reuse
MIN_CFG_START = 6  # two full evaluations before the first rebuilt branch
MIN_CFG_EVALUATIONS = 12  # shorter runs change too much between refreshes
SHORT_RUN = 25  # below this many evaluations the native periods are too long
MAX_GAIN = 1.75  # what the references' low band reaches; the high band of two of them goes to 2.49


@dataclass(frozen=True)
class Preset:
    """Constants of one model, in 1-based evaluations of a run of `native` evaluations.

    Attention outputs are reused from `attention_from` on except where k % attention_every == attention_phase;
    the unconditional branch is rebuilt from `cfg_from` on except where k % cfg_every == cfg_phase, with gains
    on the bands of its difference or none. Where `mlp` is given, the newest MLP outputs of blocks mlp[0] to
    mlp[1] are held whenever attention is reused.
    """

    native: int
    attention_from: int
    attention_every: int
    attention_phase: int
    weight: Constant | Ramp
    max_age: int | None
    cfg_from: int
    cfg_every: int
    low: Gain | None = None
    high: Gain | None = None
    cfg_phase: int = 0
    radius: float = 0.2
    is_last_full: bool = False
    mlp: tuple[int, int] | None = None


# Sources: the scripts of Vchitect/FasterCache@02d05ef, one per model; Mochi counts from 0 there, from 1 here.
PRESETS: dict[str, Preset] = {
    # scripts/opensora/fastercache_sample_opensora.py
    "opensora": Preset(
        30, 8, 2, 1, Ramp(7, 0.0, 30, 1.035), 1, 12, 5, Gain(1.15, stop=25), Gain(1.15, start=20)
    ),
    # scripts/opensora/fastercache_sample_multi_device_opensora.py, the paper's multi-GPU table rests on it;
    # it counts the 56 blocks in running order, spatial 0, temporal 0, spatial 1 ...
    "opensora-multi-device": Preset(
        30, 8, 2, 1, Ramp(7, 0.0, 30, 1.035), 1, 12, 5, Gain(1.15, stop=25), Gain(1.15, start=20),
        mlp=(14, 42),
    ),
    # scripts/opensora_plan/fastercache_sample_opensora_plan.py; 150 PNDM steps are 159 evaluations
    "opensora-plan": Preset(
        159, 46, 3, 0, Constant(0.3), 2, 40, 6, Gain(1.1, stop=130), Gain(1.2, start=131)
    ),
    # scripts/latte/fastercache_sample_latte.py
    "latte": Preset(50, 16, 2, 1, Constant(0.5), 1, 18, 5, Gain(1.1, stop=44), Gain(1.1, start=45)),
    # scripts/cogvideox/fastercache_sample_cogvideox.py
    "cogvideox": Preset(50, 18, 3, 0, Constant(0.3), 2, 18, 5, Gain(1.1, stop=40), Gain(1.1, start=30)),
    # scripts/vchitect/fastercache_sample_vchitect.py
    "vchitect": Preset(
        100, 32, 2, 1, Constant(0.0), None, 31, 5, Gain(1.05, stop=79), Gain(1.1, start=61), radius=0.0
    ),
    # scripts/mochi/fastercache_sample_mochi.py; the text half of its joint attention is extrapolated with the
    # video's
    "mochi": Preset(
        64, 21, 2, 0, Ramp(1, 0.0, 64, 1.0, floor=0.5), 1, 23, 5, Gain(1.15, stop=51), Gain(1.25, start=31),
        cfg_phase=1, is_last_full=True,
    ),
    # The paper's text: reuse every other evaluation from .27 N, weights 0 to 1, full every 5th from N / 3,
    # gains 1.2 on the low band before .7 N and on the high band after it, not compounded.
    "paper_default": Preset(
        30, 8, 2, 1, Ramp(8, 0.0, 30, 1.0), 1, 10, 5,
        Gain(1.2, stop=21, accumulates=False), Gain(1.2, start=22, accumulates=False), is_last_full=True,
    ),
    # For models without a preset: the paper's evaluations, Latte's weight and no gains. On both models that
    # ship 3 dB nearer to the plain video than the paper's text (bench/LOG.md).
    "default": Preset(30, 8, 2, 1, Constant(0.5), 1, 10, 5, is_last_full=True),
}  # fmt: skip


@dataclass(frozen=True)
class FasterCache:
    """Extrapolates attention outputs and rebuilds the unconditional branch (CFG-Cache).

    Attributes:
        preset: constants of which model; "auto" = those of the model at hand, `default` for unknown ones.
        attention: whether attention outputs are reused (and MLP outputs, where the preset has them).
        cfg: whether the unconditional branch is rebuilt; stands aside when guidance is off.
        cfg_every: compute the unconditional branch in one of so many evaluations (higher = faster; 0 =
            preset's).
        attention_every: compute attention in one of so many evaluations (higher = faster; 0 = preset's).
        start: shift of both starts as a fraction of the run (positive = later = closer to the plain video).
    """

    preset: str = "auto"
    attention: bool = True
    cfg: bool = True
    cfg_every: int = 0
    attention_every: int = 0
    start: float = 0.0

    citation: ClassVar[str] = "FasterCache (ICLR 2025), https://arxiv.org/abs/2410.19355"

    def __post_init__(self) -> None:
        if self.preset not in ("auto", *PRESETS):
            raise unknown("fastercache preset", self.preset, ("auto", *PRESETS))
        require(
            self.attention or self.cfg,
            "fastercache.attention, cfg",
            (False, False),
            "at least one of them True",
        )
        require(
            self.cfg_every == 0 or self.cfg_every >= 2,
            "fastercache.cfg_every",
            self.cfg_every,
            "0 or 2 and more",
        )
        is_valid = self.attention_every == 0 or self.attention_every >= 2
        require(is_valid, "fastercache.attention_every", self.attention_every, "0 or 2 and more")
        require(-0.5 <= self.start <= 0.9, "fastercache.start", self.start, "-0.5 to 0.9 of the run")

    def policy(self, model: str, num_evaluations: int) -> Policy:
        """The policy for a model (`ModelSpec.name`) and a run of `num_evaluations`."""
        name = self.preset if self.preset != "auto" else model if model in PRESETS else "default"
        preset = self._set_periods(scale(self._shift(PRESETS[name]), num_evaluations))
        rules, notes = [], []
        if self.cfg and num_evaluations >= MIN_CFG_EVALUATIONS:
            rules.append(cfg_rule(preset))
        elif self.cfg:
            notes.append(
                f"CFG-Cache needs {MIN_CFG_EVALUATIONS} evaluations or more, this run has "
                f"{num_evaluations}: switched off"
            )
        if self.attention:
            rules.append(attention_rule(preset))
        if self.attention and preset.mlp is not None:
            first, last = preset.mlp
            rules.append(replace(rules[-1], what=Mlp(first=first, last=last), how=Hold()))
        return Policy(tuple(rules), "fastercache", tuple(notes))

    def _shift(self, preset: Preset) -> Preset:
        shift = round(self.start * preset.native)
        return replace(
            preset,
            attention_from=max(MIN_ENTRIES + 1, preset.attention_from + shift),
            cfg_from=max(MIN_ENTRIES, preset.cfg_from + shift),
        )

    def _set_periods(self, preset: Preset) -> Preset:
        return replace(
            preset,
            attention_every=self.attention_every or preset.attention_every,
            max_age=self.attention_every - 1 if self.attention_every else preset.max_age,
            cfg_every=self.cfg_every or preset.cfg_every,
            is_last_full=preset.is_last_full or self.cfg_every > 0,
        )


def scale(preset: Preset, num_evaluations: int) -> Preset:
    """The preset for another number of evaluations; at its native number it is returned as it is.

    Starts are fractions of the run, periods stay in evaluations (shorter in short runs), a gain's growth over
    the whole run is kept and its weight capped, and the last evaluation is full.
    """
    if num_evaluations == preset.native:
        return preset
    ratio = num_evaluations / preset.native
    is_short = num_evaluations < SHORT_RUN

    def at(evaluation: float, minimum: int) -> int:
        return max(minimum, round(evaluation * ratio))

    def gain(band: Gain | None) -> Gain | None:
        if band is None:
            return None
        rate = band.rate ** (1 / ratio) if band.accumulates else band.rate
        # (start - 1, stop] is one stretch of the run, so that adjacent bands stay adjacent
        start = math.floor((band.start - 1) * ratio) + 1
        stop = math.floor(band.stop * ratio) if math.isfinite(band.stop) else band.stop
        return replace(band, rate=rate, start=start, stop=stop, cap=MAX_GAIN)

    weight = preset.weight
    if isinstance(weight, Ramp):
        weight = replace(weight, start=weight.start * ratio, stop=float(num_evaluations))
    return replace(
        preset,
        native=num_evaluations,
        attention_from=at(preset.attention_from, MIN_ATTENTION_START),
        cfg_from=at(preset.cfg_from, MIN_CFG_START),
        # full evaluations compute attention anyway (their unconditional history is old): reuse on the others
        attention_phase=preset.cfg_phase,
        attention_every=2 if is_short else preset.attention_every,
        max_age=1 if is_short else preset.max_age or preset.attention_every - 1,
        cfg_every=max(2, round(5 * num_evaluations / 30)) if is_short else preset.cfg_every,
        weight=weight,
        low=gain(preset.low),
        high=gain(preset.high),
        is_last_full=True,
    )


def cfg_rule(preset: Preset) -> Rule:
    """CFG-Cache: the unconditional output from the conditional one and its banded difference."""
    when = Every(
        preset.cfg_every, start=preset.cfg_from, phase=preset.cfg_phase, is_last_computed=preset.is_last_full
    )
    if preset.low is None or preset.high is None:
        return Rule(Branch("uncond"), when, Hold())
    return Rule(Branch("uncond"), when, FrequencyBands(preset.low, preset.high, preset.radius))


def attention_rule(preset: Preset) -> Rule:
    """Dynamic feature reuse: attention outputs extrapolated from the last two computed ones."""
    when = Every(
        preset.attention_every,
        start=preset.attention_from,
        phase=preset.attention_phase,
        is_last_computed=preset.is_last_full,
    )
    how = Hold() if preset.weight == Constant(0.0) else Linear(preset.weight)
    return Rule(Attention(), when, how, max_age=preset.max_age)
