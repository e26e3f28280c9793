"""The settings of keystep's own methods that are measured: data, a line a setting, the default first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keystep.how import Constant, FrequencyBands, Hold, Linear
from keystep.lab.contestant import OURS, Contestant, Name, describe, ours
from keystep.methods.registry import METHODS
from keystep.policy import Policy, Rule
from keystep.what import Attention, Branch, Span
from keystep.when import Always

Options = Mapping[str, Any]

# One knob of each method, swept over the range in which it computes a half to a quarter, and a little beyond.
# A method that is not here is measured as it comes.
KNOBS: dict[str, Sequence[Options]] = {
    "fastercache": (
        {},
        {"start": -0.1},
        {"start": -0.2},
        {"cfg_every": 8, "start": -0.2},
        {"cfg_every": 10, "attention_every": 3, "start": -0.25},
    ),
    "adacache": (
        {},
        {"codebook": "slow"},
        {"codebook": {0.1: 3, 0.3: 2}},
        {"codebook": {0.1: 4, 0.3: 3, 0.5: 2}},
        {"codebook": {0.1: 8, 0.3: 6}, "otherwise": 2},
    ),
    "adacache+moreg": (
        {},
        {"codebook": "slow"},
        {"codebook": {0.1: 3, 0.3: 2}},
        {"codebook": {0.1: 4, 0.3: 3, 0.5: 2}},
        {"codebook": {0.1: 8, 0.3: 6}, "otherwise": 2},
    ),
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
    """Every method of the registry with each of its settings; the first setting is the default."""
    return [
        Contestant(Name(OURS, name, describe(options)), ours(name, options), is_default=index == 0)
        for name in METHODS
        for index, options in enumerate(KNOBS.get(name, ({},)))
    ]


def never_skipping() -> list[Contestant]:
    """Contestants whose time beyond the plain one is keystep's overhead."""
    measuring = ours("adacache", {"codebook": {0.0: 1}, "moreg": True})
    return [
        Contestant(Name(OURS, name, ""), ours(policy, {}), is_default=True)
        for name, policy in NEVER_SKIPPING.items()
    ] + [Contestant(Name(OURS, MEASURING, ""), measuring, is_default=True)]
