"""Methods and policies: frozen, comparable, from names and from strings; what they are made of."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

import keystep
from keystep import AdaCache, FasterCache, MoReg, Policy, Rule
from keystep.engine.session import Session
from keystep.how import Constant, FrequencyBands, Hold, Linear
from keystep.methods import METHODS, build
from keystep.methods.adacache import MODEL_BOOKS
from keystep.models.registry import SPECS
from keystep.what import Attention, AttentionResidual, Branch, Span
from keystep.when import Every


def test_fastercache_is_two_rules() -> None:
    cfg, attention = FasterCache().policy("latte", 50).rules
    assert (cfg.what, attention.what) == (Branch("uncond"), Attention())
    assert isinstance(cfg.how, FrequencyBands) and attention.how == Linear(Constant(0.5))
    assert attention.max_age == 1 and FasterCache().policy("cogvideox", 50).rules[1].max_age == 2
    assert FasterCache().policy("wan", 30) == FasterCache("default").policy("wan", 30)
    bands, hold = (FasterCache(name).policy("wan", 30).rules[0] for name in ("paper_default", "default"))
    assert isinstance(bands.how, FrequencyBands) and hold.how == Hold() and bands.when == hold.when
    assert FasterCache(preset="latte").policy("wan", 50) == FasterCache().policy("latte", 50)


def test_adacache_is_one_rule() -> None:
    (rule,) = AdaCache().policy("wan", 30).rules
    assert (rule.what, rule.how) == (Span(), Hold())
    assert rule.when.distance.probe == AttentionResidual(0.5) and rule.when.moreg is None
    policy = AdaCache(moreg=MoReg(window=(0.2, 0.8), strides=(1, 2)), over="all").policy("wan", 50)
    moreg = policy.rules[0].when.moreg
    assert (moreg.first, moreg.last, moreg.motion.strides) == (10, 40, (1, 2))
    assert moreg.motion.over == policy.rules[0].when.distance.over == "all"
    assert AdaCache(moreg=True).policy("wan", 30).rules[0].when.moreg.last == 26
    assert AdaCache("fast-100", moreg=True).policy("wan", 100).rules[0].when.moreg.first == 10
    assert AdaCache({0.2: 2, 0.1: 3}, native=20).policy("", 20).rules[0].when.entries == ((0.1, 3), (0.2, 2))


def test_build_reads_strings() -> None:
    """As they come from a command line."""
    method = build("fastercache", cfg_every="4", attention="false", start="0.1")
    assert method == FasterCache(cfg_every=4, attention=False, start=0.1)
    assert build("adacache+moreg") == AdaCache(moreg=True)
    assert build("adacache", moreg=MoReg(exponent=2.0)).moreg == MoReg(exponent=2.0)
    assert build("adacache", codebook={"0.1": "3"}) == AdaCache({0.1: 3})
    assert build("adacache", moreg={"exponent": 2}).moreg == MoReg(exponent=2.0)


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_frozen_and_pure(name: str) -> None:
    method = build(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.native = 3
    if name.startswith("static"):
        pytest.skip("needs a file: tests/calibrate")
    for steps in (1, 7, 30, 50, 200):
        policy = method.policy("toy", steps)  # MagCache has ratios for it
        assert policy == build(name).policy("toy", steps), "nothing is remembered between calls"
        assert pickle.loads(pickle.dumps(policy)) == policy
        assert policy.policy("wan", 3) is policy, "a policy is its own method"
        assert repr(policy)


def test_rules_have_labels() -> None:
    assert Rule(Span(2), Every(2), Hold()).label == "span[2:]"
    assert Policy((Rule(Span(), Every(2), Hold()),)).name == "custom"


def test_specs_are_short_and_consistent() -> None:
    assert {"latte", "cogvideox", "wan"} <= set(SPECS)
    for spec in SPECS.values():
        for patterns in (spec.attention, spec.mlp, spec.residual):
            assert all(pattern.split(".{}.")[0] in spec.blocks for pattern in patterns.values())


def test_public_names() -> None:
    assert all(getattr(keystep, name) is not None for name in keystep.__all__)
    assert keystep.Session is Session
    with pytest.raises(AttributeError, match="no attribute 'acelerate'"):
        _ = keystep.acelerate


def test_load_toy() -> None:
    """The shipped model works with both methods right after loading."""
    pipe = keystep.load("toy")
    assert type(pipe).__name__ == "ToyPipeline"
    with pytest.raises((OSError, ValueError)), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        keystep.load("./no/such/folder")


def test_models_may_have_books_of_their_own() -> None:
    """Used as they are at their length; every other model takes Open-Sora's, scaled."""
    for (model, name), book in MODEL_BOOKS.items():
        (rule,) = AdaCache(name).policy(model, book.native).rules
        (other,) = AdaCache(name).policy("wan", book.native).rules
        assert rule.when.entries == book.entries != other.when.entries
        assert [rate for _, rate in rule.when.entries] == [rate for _, rate in other.when.entries]
    assert AdaCache("fast-100").policy("latte", 100) == AdaCache("fast-100").policy("wan", 100)
