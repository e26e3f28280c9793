"""The settings of keystep's own methods that are measured: data, a curve a line, the default first."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keystep.how import Constant, FrequencyBands, Hold, Linear
from keystep.lab.contestant import OURS, Contestant, Name, describe, ours
from keystep.lab.placed import placed_by_others
from keystep.methods.cfg import CFG
from keystep.methods.registry import METHODS
from keystep.policy import Policy, Rule
from keystep.what import Attention, Branch, Span
from keystep.when import Always


@dataclass(frozen=True)
class Sweep:
    """A curve: one method of the registry over settings of one knob.

    Attributes:
        method: its name in the registry.
        settings: options, the default first, then towards less compute.
        fixed: options of all of them.
    """

    method: str
    settings: tuple[dict[str, Any], ...]
    fixed: dict[str, Any] = field(default_factory=dict)


def over(knob: str, *values: Any) -> tuple[dict[str, Any], ...]:
    """The default and then each value of one knob."""
    return ({}, *({knob: value} for value in values))


_CODEBOOKS = (
    *over("codebook", "slow", {0.1: 3, 0.3: 2}, {0.1: 4, 0.3: 3, 0.5: 2}),
    {"codebook": {0.1: 8, 0.3: 6}, "otherwise": 2},
)
# Name in the results -> curve. Each is swept over the range in which it computes a half to a quarter, and a
# little beyond. A method of the registry without a curve is measured as it comes.
SWEEPS: dict[str, Sweep] = {
    "auto": Sweep("auto", over("speedup", 2.0, 3.0, 3.75, 4.3)),
    "auto by tolerance": Sweep("auto", ({"quality": "high"}, {"quality": "balanced"}, {"quality": "fast"})),
    "auto converged": Sweep("auto", over("speedup", 2.0, 3.0, 3.75, 4.3), {"quality": "converged"}),
    "fastercache": Sweep(
        "fastercache",
        (
            *over("start", -0.1, -0.2),
            {"cfg_every": 3},
            {"start": -0.1, "cfg_every": 3},
            {"start": -0.2, "cfg_every": 8},
            {"start": -0.25, "cfg_every": 10, "attention_every": 3},
        ),
    ),
    "adacache": Sweep("adacache", _CODEBOOKS),
    "adacache+moreg": Sweep("adacache+moreg", _CODEBOOKS),
    "pab": Sweep("pab", over("stretch", 1.5, 2.0, 3.0)),
    "fora": Sweep("fora", over("interval", 2, 4, 5)),
    "teacache": Sweep("teacache", over("threshold", 0.15, 0.2, 0.25, 0.4)),
    "fbcache": Sweep("fbcache", over("threshold", 0.1, 0.15, 0.2, 0.4)),
    "dbcache": Sweep("dbcache", over("threshold", 0.03, 0.12, 0.15, 0.3, 0.6), {"first": 1, "warmup": 4}),
    "taylorseer": Sweep("taylorseer", over("interval", 2, 3, 4)),
    "taylorseer lite": Sweep("taylorseer", over("interval", 2, 3, 4), {"lite": True}),
    "magcache": Sweep(
        "magcache",
        (
            *over("max_consecutive", 1),
            {"threshold": 0.12},
            {"threshold": 0.24},
            {"threshold": 0.24, "max_consecutive": 6, "retained": 0.1},
        ),
    ),
    "static": Sweep("static", over("compute", 0.4, 0.33, 0.25)),
    "dicache": Sweep("dicache", over("threshold", 0.05, 0.4, 0.8)),
    "easycache": Sweep("easycache", over("threshold", 0.02, 0.1, 0.2, 0.4)),
    "dicache by change": Sweep("dicache", over("threshold", 0.1, 0.4, 0.8), {"is_relative": False}),
    "seacache": Sweep("seacache", over("threshold", 0.5, 0.7, 1.0, 1.5), {"max_consecutive": None}),
}

# Policies that measure or stand ready but never skip: what they cost is overhead.
NEVER_SKIPPING: dict[str, Policy] = {
    name: Policy(rules, name)
    for name, rules in {
        "never: span": (Rule(Span(), Always(), Hold()),),
        "never: attention and branch": (
            Rule(Branch(), Always(), FrequencyBands()),
            Rule(Attention(), Always(), Linear(Constant(0.5))),
        ),
    }.items()
}
MEASURING = "never: adacache, measuring"


def own_methods() -> list[Contestant]:
    """Every method of the registry with each of its settings, and `auto` as others would place it; the first
    setting is the default, except of combinations: beside their parts' they are of interest as curves only.
    """
    swept = {sweep.method for sweep in SWEEPS.values()}
    single = {name: Sweep(name, ({},)) for name in METHODS if name not in swept}
    return [
        Contestant(
            Name(OURS, name, describe(options)),
            ours(sweep.method, {**sweep.fixed, **options}),
            is_default=index == 0 and not name.endswith(CFG),
        )
        for name, sweep in (SWEEPS | single).items()
        if sweep.method in METHODS
        for index, options in enumerate(sweep.settings)
    ] + placed_by_others()


def never_skipping() -> list[Contestant]:
    """Contestants whose time beyond the plain one is keystep's overhead."""
    measuring = ours("adacache", {"codebook": {0.0: 1}, "moreg": True})
    return [
        Contestant(Name(OURS, name, ""), ours(policy, {}), is_default=True)
        for name, policy in NEVER_SKIPPING.items()
    ] + [Contestant(Name(OURS, MEASURING, ""), measuring, is_default=True)]
