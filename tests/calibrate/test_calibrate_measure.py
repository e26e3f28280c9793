"""Calibration against plain hooks and plain runs; the files it leaves; methods that read them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

import keystep
from keystep import Policy, Rule
from keystep.calibrate import Record, count_evaluations, measure_ratios, measure_segments
from keystep.how import Hold
from keystep.methods import MagCache, Static, build
from keystep.methods.magcache import SHIPPED
from keystep.methods.measured import read_measured
from keystep.models.registry import find_spec
from keystep.what import Span
from keystep.when import Mask
from tests.laws.instruments import differences, snapshot
from tests.matrix import decisions, pipe_of, scale_of
from tests.zoo import COGVIDEOX, LATTE, WAN, Zoo

STEPS = 6
ZOOS = pytest.mark.parametrize("zoo", [LATTE, COGVIDEOX, WAN], ids=lambda zoo: zoo.name)


def arguments_of(zoo: Zoo, scale: float = 4.0) -> dict[str, Any]:
    arguments = zoo.arguments(steps=STEPS, scale=scale)
    return {key: value for key, value in arguments.items() if key not in ("generator", "output_type")}


def borders(zoo: Zoo, pipe: Any) -> tuple[Any, Any]:
    transformer = pipe.transformer
    if zoo is WAN:
        return transformer.blocks[0], transformer.norm_out
    return transformer.transformer_blocks[
        0
    ], transformer.norm_final if zoo is COGVIDEOX else transformer.norm_out


@ZOOS
@pytest.mark.parametrize("is_guided", [True, False], ids=["guided", "unguided"])
def test_ratios_against_plain_hooks(zoo: Zoo, is_guided: bool) -> None:
    pipe, seen = pipe_of(zoo), []
    first, behind = borders(zoo, pipe)
    handles = [
        first.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        ),
        behind.register_forward_pre_hook(lambda _, args: seen.append(args[0])),
    ]
    zoo.sample(pipe, steps=STEPS, scale=scale_of(is_guided))
    for handle in handles:
        handle.remove()
    residuals = [after - before for before, after in zip(seen[::2], seen[1::2], strict=True)]
    if is_guided:
        residuals = residuals[::2] if zoo is WAN else [residual.chunk(2)[1] for residual in residuals]
    norms = [residual.norm(dim=-1) for residual in residuals]
    expected = [1.0, *(float((now / before).mean()) for before, now in pairwise(norms))]
    before = snapshot(pipe)
    found = measure_ratios(pipe, find_spec(pipe.transformer, pipe), arguments_of(zoo, scale_of(is_guided)), 0)
    assert len(found) == STEPS and found == pytest.approx(expected, rel=1e-4)
    assert differences(before, snapshot(pipe)) == [], "nothing stays behind"


@ZOOS
def test_segments_are_what_one_stretch_alone_does(zoo: Zoo) -> None:
    pipe, arguments = pipe_of(zoo), arguments_of(zoo)
    assert count_evaluations(pipe, arguments) == STEPS
    plain = zoo.sample(pipe, steps=STEPS)
    found = dict(measure_segments(pipe, [(1, 3), (2, 5)], STEPS, arguments, 0))
    for edge, letters in {(1, 3): "CsCCCC", (2, 5): "CCssCC"}.items():
        with keystep.accelerate(pipe, Policy((Rule(Span(), Mask(letters), Hold()),))):
            latents = zoo.sample(pipe, steps=STEPS)
        expected = float((latents - plain).abs().mean() / plain.abs().mean())
        assert found[edge] == pytest.approx(expected, rel=1e-4) and expected > 0
    assert torch.equal(zoo.sample(pipe, steps=STEPS), plain), "nothing stays attached"


# ------------------------------------------------------------------ files


def write(path: Path, method: str, values: Any, model: str = "wan", steps: int = 6) -> str:
    record = Record(path, method, model, {"steps": steps})
    record.save(steps, values)
    return str(path)


def test_a_record_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ratios.json"
    record = Record(path, "magcache", "wan", {"steps": 6, "load": None})
    record.of("a cat", 0)["ratios"] = [1.0, 0.5]
    record.save()
    with pytest.raises(ValueError, match="is not finished; run it again to go on"):
        read_measured("magcache.ratios", "magcache", path)
    again = Record(path, "magcache", "wan", {"steps": 6, "load": None})
    assert again.of("a cat", 0) == {"ratios": [1.0, 0.5]} and again.of("a dog", 0) == {}
    again.save(2, [1.0, 0.5])
    assert read_measured("magcache.ratios", "magcache", path).values == [1.0, 0.5]
    for changed in ({"steps": 7, "load": None}, {"steps": 6, "load": {"source": "x"}}):
        with pytest.raises(ValueError, match="was made with (steps|load) = "):
            Record(path, "magcache", "wan", changed)
    with pytest.raises(ValueError, match="was made with method = 'magcache', given now: 'static'"):
        Record(path, "static", "wan", {"steps": 6, "load": None})
    path.write_text("{")
    with pytest.raises(ValueError, match="unreadable"):
        Record(path, "magcache", "wan", {"steps": 6})


def test_magcache_reads_its_ratios(tmp_path: Path) -> None:
    file = write(tmp_path / "r.json", "magcache", [1.0, 1.0, 0.99, 0.99, 0.5, 1.0])
    (rule,) = MagCache(file, threshold=0.1, max_consecutive=3, retained=0.0).policy("wan", 6).rules
    assert (rule.what, rule.when, rule.how) == (Span(), Mask("CsssCs"), Hold())
    assert MagCache((1.0, 1.0, 0.99, 0.99, 0.5, 1.0), 0.1, 3, 0.0).policy("wan", 6).rules == (rule,)
    assert MagCache(file).policy("wan", 50).rules[0].when.letters.startswith("C" * 10)
    assert build("magcache", ratios=[1.0, 1.0], threshold="0.2").ratios == (1.0, 1.0)
    with pytest.raises(ValueError, match="given 'wan', allowed: ratios of the model latte"):
        MagCache(file).policy("latte", 6)
    with pytest.raises(ValueError, match="keystep calibrate --model MODEL --method magcache"):
        MagCache().policy("latte", 50)
    with pytest.raises(ValueError, match="no-such-file.json' cannot be read"):
        MagCache(str(tmp_path / "no-such-file.json")).policy("wan", 6)


def test_static_reads_its_schedule(tmp_path: Path) -> None:
    errors = {"1-3": 2.0, "2-4": 4.0, "3-5": 3.0, "4-6": 9.0, "1-4": 6.0, "2-5": 5.0, "3-6": 8.0}
    file = write(tmp_path / "s.json", "static", errors)
    (rule,) = Static(file, compute=4 / 6).policy("wan", 6).rules
    assert (rule.what, rule.when, rule.how) == (Span(), Mask("CsCsCC"), Hold())
    policy = Static(file, compute=4 / 6).policy("wan", 11)
    assert policy.rules[0].when.letters == "CsssCsssCsC" and "measured for 6" in policy.notes[0]
    assert Static(file, compute=1.0).policy("wan", 6).rules[0].when == Mask("CCCCCC")
    with pytest.raises(ValueError, match="nothing was measured for wan.*schedule=FILE"):
        Static().policy("wan", 50)
    with pytest.raises(ValueError, match="is no file of `keystep calibrate --method static`"):
        Static(write(tmp_path / "r.json", "magcache", [1.0])).policy("wan", 6)


def test_both_skip_as_planned(tmp_path: Path) -> None:
    errors = {"1-3": 2.0, "2-4": 4.0, "3-5": 3.0, "4-6": 9.0}
    methods = {
        "CsCsCC": Static(write(tmp_path / "s.json", "static", errors), 4 / 6),
        "CsssCs": MagCache((1.0,) * 6, max_consecutive=3, retained=0.0),
    }
    for letters, method in methods.items():
        with keystep.accelerate(pipe_of(WAN), method) as session:
            WAN.sample(pipe_of(WAN), steps=6)
        assert decisions(session.trace) == {"span": letters}


def test_ratios_that_ship_are_of_the_models_that_ship() -> None:
    """Measured anew on one prompt of the file: new weights need new ratios."""
    data = json.loads((SHIPPED / "toy.json").read_text())
    key, run = next(iter(data["runs"].items()))
    seed, _, prompt = key.partition(" ")
    pipe = keystep.load("toy")
    pipe.set_progress_bar_config(disable=True)
    found = measure_ratios(pipe, find_spec(pipe.transformer, pipe), {"prompt": prompt}, int(seed))
    assert found == pytest.approx(run["ratios"], rel=1e-3)
    assert len(data["values"]) == data["num_evaluations"] == len(found)
    assert MagCache().policy("toy", len(found)).rules[0].when.letters.count("s") > 5
