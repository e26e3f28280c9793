"""Policies as plain data and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import keystep
from keystep.cli.method_options import build_method
from keystep.methods import METHODS, build
from keystep.methods.fastercache import PRESETS
from keystep.serialize import from_data, to_data

POLICIES = {
    **{
        f"fastercache {name} {n}": keystep.FasterCache(preset=name).policy("", n)
        for name in PRESETS
        for n in (30, 77)
    },
    "adacache": keystep.AdaCache(codebook="slow").policy("", 30),
    **{name: build(name).policy("toy", 30) for name in METHODS if not name.startswith("static")},
    "adacache+moreg (own)": keystep.AdaCache(moreg=keystep.MoReg(strides=(1, 2))).policy("", 100),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_there_and_back_through_json(policy: keystep.Policy) -> None:
    assert from_data(json.loads(json.dumps(to_data(policy), allow_nan=False))) == policy


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"type": "Polcy"}, "unknown policy part 'Polcy'; did you mean Policy"),
        ({"type": "Every", "peroid": 2}, "unknown field of Every 'peroid'; did you mean period"),
        ({"type": "Every", "period": 0}, "Every.period: given 0"),
        ({"rules": []}, "unknown policy part"),
        ({"type": "Every"}, "policy part Every: .*period"),
        (
            {"type": "Rule", "what": {"type": "Span"}, "when": "often", "how": {"type": "Hold"}},
            "Rule.when: given 'often'",
        ),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_data(data)


def test_a_policy_file_may_spell_its_rules_out(tmp_path: Path) -> None:
    policy = POLICIES["adacache"]
    data = {key: value for key, value in to_data(policy).items() if key != "type"}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"method": "custom", **data}))
    assert build_method(None, (), path) == policy
