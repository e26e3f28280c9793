"""Bad input gets a clear error that names field, given and allowed, before any model call."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import keystep
from keystep import AdaCache, FasterCache, MoReg, Policy, Rule
from keystep.how import Constant, FrequencyBands, Gain, Hold, Linear, Ramp, Spacing, Taylor
from keystep.methods import FORA
from keystep.methods.registry import check_options
from keystep.models.wan import WAN as WAN_SPEC
from keystep.what import Attention, AttentionResidual, Branch, Guidance, PrefixResidual, Span
from keystep.when import (
    Always,
    Below,
    Codebook,
    Every,
    Mask,
    MotionRatio,
    MotionRegularisation,
    RelativeChange,
)
from tests.laws import fake
from tests.laws.instruments import differences, snapshot
from tests.matrix import METHODS, drive, pipe_of
from tests.zoo import COGVIDEOX, LATTE, WAN

HOLD_SPAN = Rule(Span(), Every(2, start=3), Hold())
HOLD_ATTENTION = Rule(Attention(), Every(2, start=3), Hold())


def attach(method: Any, zoo: Any = WAN, **options: Any) -> None:
    """Attach and leave again; a model call is never made."""
    pipe = pipe_of(zoo)
    before = snapshot(pipe)
    try:
        with keystep.accelerate(pipe, method, **options):
            pass
    finally:
        assert differences(before, snapshot(pipe)) == []


BY_NAME: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "unknown method": (
        "fastcache",
        {},
        ["method", "'fastcache'", "did you mean fastercache", "adacache+moreg"],
    ),
    "unknown twin": ("teacache+cgf", {}, ["did you mean teacache+cfg", "teacache; all but auto and"]),
    "far from any": ("zzz", {}, ["'zzz'", "known: adacache, "]),
    "unknown option": ("fastercache", {"cfg_evry": 5}, ["'cfg_evry'", "did you mean", "cfg_every"]),
    "option of the other": ("fastercache", {"codebook": "fast"}, ["'codebook'", "attention_every"]),
    "unknown preset": ("fastercache", {"preset": "late"}, ["'late'", "did you mean latte", "vchitect"]),
    "unknown codebook": ("adacache", {"codebook": "fats"}, ["'fats'", "did you mean fast", "slow"]),
    "period too small": ("fastercache", {"cfg_every": 1}, ["cfg_every", "given 1", "2 and more"]),
    "negative period": ("fastercache", {"attention_every": -2}, ["attention_every", "-2"]),
    "start too late": ("fastercache", {"start": 0.95}, ["start", "0.95", "0.9"]),
    "both halves off": ("fastercache", {"attention": False, "cfg": False}, ["at least one"]),
    "not a bool": ("fastercache", {"attention": "perhaps"}, ["attention", "'perhaps'"]),
    "not a number": ("fastercache", {"cfg_every": "often"}, ["cfg_every", "'often'"]),
    "a fraction of evaluations": ("fastercache", {"cfg_every": 2.5}, ["cfg_every", "2.5"]),
    "rate below one": ("adacache", {"codebook": {0.1: 0}}, ["rate"]),
    "rate of no whole number": ("adacache", {"codebook": {0.1: 2.5}}, ["codebook", "2.5"]),
    "depth beyond the last": ("adacache", {"depth": 1.5}, ["depth", "1.5", "0 to 1"]),
    "depth by name": ("adacache", {"depth": 2}, ["adacache.depth", "given 2"]),
    "no evaluations": ("adacache", {"native": 0}, ["native", "given 0"]),
    "over": ("adacache", {"over": "some"}, ["over", "'some'"]),
    "otherwise": ("adacache", {"codebook": {0.1: 2}, "otherwise": 0}, ["rate"]),
    "inner option": ("adacache", {"moreg": {"exponet": 4}}, ["exponet"]),
    "inner range": ("adacache", {"moreg": {"pivot": 0}}, ["pivot"]),
    "window": ("adacache", {"moreg": {"window": (0.9, 0.1)}}, ["window"]),
}


@pytest.mark.parametrize("case", BY_NAME)
def test_methods_by_name(case: str) -> None:
    name, options, words = BY_NAME[case]
    with pytest.raises(ValueError) as caught:
        attach(name, **options)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 400


PARTS: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "Every.period": (lambda: Every(0), ["Every.period", "given 0", "Always()"]),
    "Every.start": (lambda: Every(2, start=1.5), ["Every.start", "1.5"]),
    "Every.start below": (lambda: Every(2, start=-1), ["Every.start", "-1"]),
    "Every.start nan": (lambda: Every(2, start=float("nan")), ["Every.start"]),
    "Every.stop": (lambda: Every(2, stop=-0.1), ["Every.stop", "-0.1"]),
    "Mask.letters": (lambda: Mask("CCX"), ["Mask.letters", "'CCX'"]),
    "Mask empty": (lambda: Mask(""), ["Mask.letters"]),
    "Below": (lambda: Below(-0.1, RelativeChange(PrefixResidual())), ["Below.threshold", "-0.1"]),
    "Codebook rising": (lambda: Codebook(((0.2, 2), (0.1, 3))), ["Codebook.entries", "rising"]),
    "Codebook rates": (lambda: Codebook(((0.1, 0),)), ["rates >= 1"]),
    "AdaCache.moreg": (lambda: AdaCache(moreg="yes"), ["adacache.moreg", "'yes'", "a MoReg"]),
    "Policy.rules": (lambda: Policy(Rule(Span(), Every(2), Hold())), ["Policy.rules", "a tuple of rules"]),
    "Span.start": (lambda: Span(-1), ["Span.start", "-1"]),
    "Branch cond": (lambda: Branch("cond"), ["Branch.name", "'cond'"]),
    "residual depth": (lambda: AttentionResidual(-0.1), ["AttentionResidual.depth", "-0.1"]),
    "prefix stop": (lambda: PrefixResidual(0), ["PrefixResidual.stop", "given 0"]),
    "motion strides": (lambda: MotionRatio(strides=()), ["MotionRatio.strides"]),
    "motion stride": (lambda: MotionRatio(strides=(0,)), ["MotionRatio.strides"]),
    "moreg pivot": (lambda: MotionRegularisation(4, 26, pivot=0), ["pivot"]),
    "moreg divisor": (lambda: MotionRegularisation(4, 26, divisor=0), ["divisor"]),
    "MoReg window": (lambda: MoReg(window=(0.5, 1.5)), ["window", "1.5"]),
    "Taylor.over": (lambda: Taylor(1, "steps"), ["Taylor.over", "'steps'", "'evaluations'"]),
    "Taylor.order": (lambda: Taylor(9), ["Taylor.order", "given 9", "0 to 4"]),
    "Spacing": (lambda: Spacing(2.0), ["Spacing.damping", "2.0"]),
    "Ramp": (lambda: Ramp(5, 0.0, 5, 1.0), ["Ramp.stop"]),
    "Gain": (lambda: Gain(0), ["Gain.rate"]),
    "radius": (lambda: FrequencyBands(radius=0.6), ["FrequencyBands.radius", "0.6"]),
    "Rule.max_age": (lambda: Rule(Span(), Every(2), Hold(), max_age=0), ["Rule.max_age", "given 0"]),
    "Guidance.kind": (lambda: Guidance("both"), ["Guidance.kind", "'both'"]),
    "Guidance.order": (lambda: Guidance("batched", ("cond",)), ["Guidance.order"]),
    "three branches": (
        lambda: Guidance("batched", ("cond", "uncond", "perturbed")),
        ["Guidance.order", "perturbed"],
    ),
    "ModelSpec.latent": (lambda: dataclasses.replace(WAN_SPEC, latent="BCHW"), ["ModelSpec.latent", "BCHW"]),
    "ModelSpec.guidance": (
        lambda: dataclasses.replace(WAN_SPEC, guidance="wild"),
        ["wild", "batched:uncond,cond"],
    ),
}


@pytest.mark.parametrize("case", PARTS)
def test_parts(case: str) -> None:
    make, words = PARTS[case]
    with pytest.raises(ValueError) as caught:
        made = make()
        if isinstance(made, keystep.ModelSpec):
            keystep.enable(pipe_of(WAN), "fastercache", spec=made)
    for word in words:
        assert word in str(caught.value)


def span_below(start: int, stop: int = 1) -> Rule:
    return Rule(Span(start), Below(0.1, RelativeChange(PrefixResidual(stop))), Hold())


OBJECTS: dict[str, tuple[Any, list[str]]] = {
    "cfg": (keystep.AdaCache(cfg="perhaps"), ["adacache.cfg", "'perhaps'"]),  # pyright: ignore[reportArgumentType]
    "interval": (FORA(interval=2.5), ["fora.interval", "2.5"]),  # pyright: ignore[reportArgumentType]
    "correct": (keystep.Auto(correct="perhaps"), ["auto.correct", "'perhaps'"]),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("case", OBJECTS)
def test_options_of_method_objects(case: str) -> None:
    method, words = OBJECTS[case]
    with pytest.raises(ValueError) as caught:
        attach(method)
    for word in words:
        assert word in str(caught.value)


def test_checking_changes_no_method() -> None:
    for name, method in METHODS.items():
        assert check_options(method) == method, name


POLICIES: dict[str, tuple[Callable[[], Any], Any, list[str]]] = {
    "two rules on one site": (
        lambda: Policy((HOLD_SPAN, Rule(Span(1), Every(2), Hold()))),
        WAN,
        ["two rules"],
    ),
    "two on attention": (
        lambda: Policy((HOLD_ATTENTION, Rule(Attention(("self",)), Every(2), Hold()))),
        WAN,
        ["two rules", "attention[self]"],
    ),
    "two branches": (
        lambda: Policy((Rule(Branch(), Every(2), FrequencyBands()), Rule(Branch(), Every(3), Hold()))),
        WAN,
        ["two rules", "branch[uncond]"],
    ),
    "empty": (lambda: Policy((), "empty"), WAN, ["'empty'", "no rules"]),
    "no such kind": (
        lambda: Policy((Rule(Attention(("temporal",)), Every(2), Hold()),)),
        WAN,
        ["attention[temporal]", "matches no site", "self, cross"],
    ),
    "one of two kinds": (
        lambda: Policy((Rule(Attention(("spatial", "joint")), Every(2), Hold()),)),
        LATTE,
        ["spatial, temporal"],
    ),
    "span beyond the last block": (
        lambda: Policy((Rule(Span(4), Every(2), Hold()),)),
        COGVIDEOX,
        ["span[4:]", "blocks 0 to 3"],
    ),
    "a branch nobody has": (
        lambda: Policy((Rule(Branch("perturbed"), Every(2), FrequencyBands()),)),
        WAN,
        ["branch[perturbed]", "cond, uncond"],
    ),
    "probe without a prefix": (lambda: Policy((span_below(0),)), WAN, ["Span", "PrefixResidual"]),
    "probe of another prefix": (lambda: Policy((span_below(2, 1),)), WAN, ["PrefixResidual"]),
    "asking about attention": (
        lambda: Policy((Rule(Attention(), Below(0.1, RelativeChange(PrefixResidual())), Hold()),)),
        WAN,
        ["Span"],
    ),
    "asking about a branch": (
        lambda: Policy((Rule(Branch(), Below(0.1, RelativeChange(PrefixResidual())), FrequencyBands()),)),
        WAN,
        ["schedule"],
    ),
    "measuring what it skips": (
        lambda: Policy((Rule(Attention(), Codebook(((0.1, 2),)), Hold()),)),
        WAN,
        ["attention"],
    ),
    "span in the middle with attention": (
        lambda: Policy((Rule(Span(1), Every(2), Hold()), HOLD_ATTENTION)),
        WAN,
        ["whole stack"],
    ),
}


@pytest.mark.parametrize("case", POLICIES)
def test_policies(case: str) -> None:
    make, zoo, words = POLICIES[case]
    with pytest.raises(ValueError) as caught:
        attach(make(), zoo)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "batched", "separate", "batched:", "both:cond,uncond", "batched:cond,cond", "batched:cond", "x:y"],
)
def test_guidance_layouts(text: str) -> None:
    with pytest.raises(ValueError, match="[Gg]uidance"):
        attach("fastercache", guidance=text or "nothing")
    if text:
        with pytest.raises(ValueError, match="[Gg]uidance"):
            Guidance.parse(text)


def test_guidance_that_parses() -> None:
    assert Guidance.parse("batched:cond,uncond") == Guidance("batched", ("cond", "uncond"))
    assert Guidance.parse(Guidance("separate")) == Guidance("separate", ("uncond", "cond"))


def test_unconditional_call_first_is_refused_where_it_cannot_work() -> None:
    layout = "separate:uncond,cond"
    for method in ("fastercache", METHODS["fastercache-cfg"], Policy((span_below(1),))):
        with pytest.raises(ValueError, match="conditional call first"):
            attach(method, guidance=layout)
    attach(METHODS["fastercache-attention"], guidance=layout)
    attach(METHODS["adacache"], guidance=layout)


NO_METHOD = ["None", "number", "FasterCache", "AdaCache", "object", "list"]


@pytest.mark.parametrize("method", [None, 5, FasterCache, AdaCache, object(), ["fastercache"]], ids=NO_METHOD)
def test_things_that_are_no_method(method: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="method"):
        attach(method)


def test_options_with_an_object() -> None:
    with pytest.raises(ValueError, match="cfg_every.*only with a method's name"):
        attach(FasterCache(), cfg_every=3)


class Unknown(nn.Module):
    pass


class WanTransformer4D(nn.Module):
    pass


def test_unknown_transformers() -> None:
    with pytest.raises(ValueError, match="unknown transformer class 'Unknown'.*spec="):
        keystep.enable(Unknown(), "fastercache")
    with pytest.raises(ValueError, match="did you mean WanTransformer3DModel"):
        keystep.enable(WanTransformer4D(), "fastercache")


class Pipe:
    """A pipeline with whatever it is given."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


@pytest.mark.parametrize(
    "target",
    [Pipe(), Pipe(transformer=None), Pipe(transformer="x"), None, "wan"],
    ids=["bare", "none", "text", "None", "name"],
)
def test_targets_without_a_transformer(target: Any) -> None:
    with pytest.raises(ValueError, match="no transformer"):
        keystep.enable(target, "fastercache")


def test_schedulers_that_cannot_be_followed() -> None:
    class NoStep:
        def set_timesteps(self) -> None: ...

    class NoTimesteps:
        def step(self) -> None: ...

    for scheduler in (NoStep(), NoTimesteps()):
        model = fake.Fake()
        pipe = Pipe(transformer=model, scheduler=scheduler)
        with (
            pytest.raises(ValueError, match="scheduler: .*begin"),
            keystep.accelerate(pipe, Policy((HOLD_SPAN,)), spec=fake.SPEC),
        ):
            pass
        assert not any(key in vars(model) for key in ("_compiled_call_impl", "forward"))


def test_pipelines_without_a_scheduler_are_driven_by_hand() -> None:
    model = fake.Fake()
    pipe = Pipe(transformer=model, scheduler=None)
    with keystep.accelerate(pipe, Policy((HOLD_SPAN,)), spec=fake.SPEC) as session:
        with pytest.raises(RuntimeError, match="begin\\(num_evaluations\\)"):
            fake.evaluate(model, "batched:uncond,cond", 1, 900.0)
        assert model.num_calls == 0
        session.begin(4)
        fake.evaluate(model, "batched:uncond,cond", 1, 900.0)


def test_pipelines_that_hide_their_guidance() -> None:
    """Neither flag nor scale: the branches cannot be told apart, and nothing is guessed."""
    scheduler = WAN.build().scheduler
    model = fake.Fake()
    pipe = Pipe(transformer=model, scheduler=scheduler)
    with keystep.accelerate(pipe, Policy((HOLD_SPAN,)), spec=fake.SPEC):
        scheduler.set_timesteps(4)
        with pytest.raises(ValueError, match="do_classifier_free_guidance"):
            fake.evaluate(model, "batched:uncond,cond", 1, 900.0)
    assert model.num_calls == 0
    pipe.guidance_scale = 3.0
    with keystep.accelerate(pipe, Policy((HOLD_SPAN,)), spec=fake.SPEC) as session:
        scheduler.set_timesteps(4)
        fake.evaluate(model, "batched:uncond,cond", 1, 900.0)
        assert session.run.branches == ("uncond", "cond")


MISFITS: dict[str, tuple[Any, str]] = {
    "blocks": (("layers",), "layers"),
    "exit": ("norm_last", "norm_last"),
    "attention": ({"self": "blocks.{}.attention9"}, "attention9"),
    "residual": ({"self": "blocks.{}.norm9"}, "norm9"),
    "residual list": ({"self": "layers.{}.norm2"}, "layers"),
    "streams": (("tokens",), "tokens"),
    "rows": (("latents",), "latents"),
}


@pytest.mark.parametrize("field", MISFITS)
def test_specs_that_do_not_fit(field: str) -> None:
    value, word = MISFITS[field]
    spec = dataclasses.replace(WAN_SPEC, **{field.split()[0]: value})
    method = Policy((*METHODS["adacache"].policy("", 16).rules, HOLD_ATTENTION))
    with pytest.raises(ValueError, match=word):
        attach(method, spec=spec)


def test_a_change_of_shape_inside_a_run() -> None:
    pipe = pipe_of(WAN)
    small, large = (torch.randn(1, 4, 3, 8, side) for side in (8, 10))
    text = torch.randn(1, 7, 20)
    with keystep.accelerate(pipe.transformer, METHODS["fastercache"]) as session:
        session.begin(16, guided=False, times=range(16, 0, -1))
        pipe.transformer(**WAN.inputs(pipe, small, 900.0, text))
        session.step()
        with pytest.raises(ValueError, match=r"shape changed.*8, 8.*8, 10"):
            pipe.transformer(**WAN.inputs(pipe, large, 800.0, text))
        assert session.run is None, "the run is over, its histories are gone"
        drive(WAN, pipe, "separate:cond,uncond", session)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_that_do_not_divide_into_branches(rows: int) -> None:
    pipe = pipe_of(COGVIDEOX)
    for method in (METHODS["fastercache"], METHODS["adacache"]):
        with keystep.accelerate(pipe.transformer, method) as session:
            session.begin(16, guided=True, times=range(16, 0, -1))
            with pytest.raises(ValueError, match="hidden_states.*(divide|branches)"):
                x, text = torch.randn(rows, *COGVIDEOX.latent), torch.randn(rows, 7, 20)
                pipe.transformer(**COGVIDEOX.inputs(pipe, x, 900.0, text))


@pytest.mark.parametrize("how", [Linear(Spacing()), Taylor(1, "time")])
def test_spacing_needs_times(how: Any) -> None:
    """Without times the weights would be not a number, and so the video."""
    policy = Policy((Rule(Span(), Every(3, start=3), how),))
    with keystep.accelerate(pipe_of(WAN).transformer, policy) as session:
        for times in ((), (900.0, 800.0)):
            with pytest.raises(ValueError, match="times"):
                session.begin(6, times=times)
    constant = Policy((Rule(Span(), Every(3, start=3), Linear(Constant(0.5))),))
    with keystep.accelerate(pipe_of(WAN).transformer, constant) as session:
        session.begin(6)


def test_begin_with_no_evaluations() -> None:
    with keystep.accelerate(pipe_of(WAN).transformer, Policy((HOLD_SPAN,))) as session:
        for number in (0, -3):
            with pytest.raises(ValueError, match=f"num_evaluations.*{number}"):
                session.begin(number)


def test_more_model_calls_than_the_layout_has() -> None:
    model = fake.Fake()
    with keystep.accelerate(model, Policy((HOLD_SPAN,)), spec=fake.SPEC) as session:
        session.begin(6)
        fake.evaluate(model, "batched:uncond,cond", 1, 900.0)
        with pytest.raises(RuntimeError, match="called 2 times.*guidance="):
            fake.evaluate(model, "batched:uncond,cond", 1, 900.0)


def test_outputs_of_more_than_the_sample() -> None:
    class Two(fake.Fake):
        def forward(self, hidden: torch.Tensor, time: torch.Tensor, text: torch.Tensor) -> Any:
            (output,) = super().forward(hidden, time, text)
            return output, output

    model = Two()
    policy = Policy((Rule(Branch(), Every(2, start=2), FrequencyBands()),))
    with keystep.accelerate(model, policy, spec=fake.SPEC) as session:
        session.begin(6)
        with pytest.raises((TypeError, ValueError), match="2 values"):
            fake.call(model, ("uncond", "cond"), 1, 900.0)


def test_always_is_a_legal_way_to_switch_a_rule_off() -> None:
    attach(Policy((Rule(Span(), Always(), Hold()),)))
