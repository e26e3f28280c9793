"""The table of knobs, knobs in words, and values put into options."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from optuna.trial import FixedTrial

from keystep import Policy, Rule
from keystep.cli.method_options import build_named
from keystep.how import Hold
from keystep.methods.knobs import KNOBS, Choice, Knob, Range, knobs_of
from keystep.methods.registry import METHODS
from keystep.methods.static import Static
from keystep.serialize import to_data
from keystep.tune.space import parse_knobs, suggest, with_values
from keystep.what import Span
from keystep.when import Every


def ends(knob: Knob) -> tuple[Any, ...]:
    return knob.values if isinstance(knob, Choice) else (knob.low, knob.high)


@pytest.mark.parametrize("name", [name for name in METHODS if not name.endswith("+cfg")])
def test_every_method_has_knobs_and_takes_both_ends(name: str) -> None:
    """A method without a row in KNOBS cannot be tuned; a knob that is no option, or out of range, fails."""
    assert KNOBS[name] and knobs_of(f"{name}+cfg") == KNOBS[name]
    assert set(KNOBS[name]) <= {field.name for field in fields(METHODS[name].cls)}
    for knob, range_ in KNOBS[name].items():
        policies = [build_named(name, {knob: end}) for end in ends(range_)]
        assert len(set(map(repr, policies))) == len(policies), f"{knob} turns nothing"
        if METHODS[name].cls is not Static:  # which needs a file
            assert all(method.policy("toy", 30).rules for method in policies)


def test_knobs_in_words() -> None:
    texts = ("a=0.05:0.4:log", "b=2:8", "c=none,1,x,true", "d=-1:0.5")
    assert parse_knobs(texts) == {
        "a": Range(0.05, 0.4, is_log=True),
        "b": Range(2, 8),
        "c": Choice((None, 1, "x", True)),
        "d": Range(-1, 0.5),
    }
    assert parse_knobs(texts)["b"].is_whole and not parse_knobs(texts)["d"].is_whole


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "--knob: given 'a', allowed: NAME=LOW:HIGH"),
        ("a=1", "two or more values"),
        ("a=2:1", "a number above low=2"),
        ("a=0:1:log", "a number > 0 on a logarithmic scale"),
        ("a=0:1:lin", "unknown scale 'lin'"),
        ("a=x:1", "--knob: given 'a=x:1'"),
        ("a=true:1", "the ends are numbers"),
    ],
)
def test_bad_knobs_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_knobs([text])
    with pytest.raises(ValueError, match="'a' is given twice"):
        parse_knobs(["a=1:2", "a=1:2"])


def test_suggested_values_are_of_the_kind_of_the_range() -> None:
    space = parse_knobs(["a=0.05:0.4:log", "b=2:8", "c=none,7"]) | {"d": Choice(({"0.1": 3}, "slow"))}
    trial = FixedTrial({"a": 0.123456789, "b": 3, "c": "null", "d": '{"0.1": 3}'})
    values = suggest(trial, space)  # type: ignore[arg-type]
    assert values == {"a": 0.1235, "b": 3, "c": None, "d": {"0.1": 3}}
    assert isinstance(values["b"], int) and not math.isclose(values["a"], 0.123456789, rel_tol=1e-6)


def test_values_go_down_into_a_policy_spelled_out() -> None:
    options = to_data(Policy((Rule(Span(), Every(2), Hold()),)))
    options.pop("type")
    changed = with_values(options, {"rules.0.when.period": 5, "name": "mine"})
    policy = build_named("custom", changed)
    assert policy.rules[0].when == Every(5) and policy.name == "mine"
    assert options["rules"][0]["when"]["period"] == 2, "what was given stays as it was"
    with pytest.raises(ValueError, match="unknown part of --knob 'rules.0.when.perid' 'perid'; did you mean"):
        with_values(options, {"rules.0.when.perid": 5})
    with pytest.raises(ValueError, match="unknown part of --knob 'rules.1.when' '1'"):
        with_values(options, {"rules.1.when": 5})
