"""The bench in a few numbers, and each method beside the same one elsewhere, on made-up rows."""

import math
from dataclasses import replace

import pytest

from keystep.lab.curves import gains_at, make_curves
from keystep.lab.rows import QualityRow
from keystep.lab.summary import summarize
from keystep.lab.tables.gains import tabulate_gains
from keystep.lab.tables.pairs import tabulate_pairs
from keystep.metrics.quality import Quality
from keystep.report.table import MISSING

SHARES = (20, 25, 33, 50, 60)


def row(source, method, setting, psnr, flops=100, prompt="a", **fields):
    quality = None if psnr is None else Quality(psnr, 1.0, 0.0, (psnr,))
    return QualityRow(
        part="quality", model="m", source=source, method=method, setting=setting, is_default=False,
        prompt=prompt, to_plain=quality, flops=flops, plain_flops=100, **fields,
    )  # fmt: skip


def curve(source, method, height, shares=SHARES):
    """PSNR that grows by 10 dB for each doubling of compute, and differs by 2 dB between two videos."""
    return [
        row(source, method, f"{share}", height + 10 * math.log2(share / 50) + spread, share, prompt,
            to_converged=height - 5, reading={"shape": prompt == "a" or height > 40})
        for share in shares
        for prompt, spread in (("a", 1.0), ("b", -1.0))
    ]  # fmt: skip


ROWS = [
    row("plain", "plain", "", None, to_converged=44.0, reading={"shape": True}),
    *curve("keystep", "auto", 50),
    *curve("keystep", "auto on static", 60),
    *curve("keystep", "fbcache", 38),
    *curve("fewer steps", "UniPC", 42),
    *curve("diffusers", "FirstBlockCache", 35, (33, 50, 80)),
]


def test_auto_is_set_against_the_best_of_others():
    gain = summarize(ROWS)["bd_psnr"]["auto_vs_best_other"]["m"]
    assert gain["other"] == "fewer steps: UniPC" and gain["gain"] == pytest.approx(8.0)


def test_single_speeds_and_the_plain_pipeline():
    found = summarize(ROWS)
    assert list(found["at"]["m"]) == ["2x", "3x", "4x"]
    at = found["at"]["m"]["2x"]
    assert at["best other"]["name"] == "fewer steps: UniPC"
    assert at["auto"]["psnr"] == pytest.approx(50) and at["auto"]["p10"] == pytest.approx(49)
    assert at["auto"]["to_converged"] == pytest.approx(45) and at["auto"]["shown"] == 1.0
    assert found["at"]["m"]["4x"]["auto"]["psnr"] == pytest.approx(40)
    assert at["auto converged"] == {} and at["nearest other"] == {}
    assert found["plain"]["m"] == {"compute": 1.0, "to_converged": 44.0, "shown": 1.0}


def test_the_converged_auto_is_set_against_who_comes_nearest():
    near = [replace(each, to_converged=47.0) for each in curve("keystep", "fbcache", 30)]
    far = [replace(each, to_converged=None) for each in curve("fewer steps", "DPM", 60)]
    own = [replace(each, to_converged=52.0) for each in curve("keystep", "auto converged", 42)]
    at = summarize([*curve("keystep", "auto", 50), *near, *far, *own])["at"]["m"]["2x"]
    assert at["best other"]["name"] == "fewer steps: DPM"
    assert at["nearest other"]["name"] == "keystep: fbcache"
    assert at["auto converged"]["to_converged"] == pytest.approx(52)


def test_single_speeds_are_compared_on_the_videos_of_both():
    hard = [row("keystep", "auto", f"{share}", 20, share, "c", to_converged=15.0) for share in SHARES]
    at = summarize([*curve("keystep", "auto", 50), *hard, *curve("fewer steps", "UniPC", 42)])["at"]["m"]
    assert at["2x"]["auto"]["psnr"] == pytest.approx(50)
    assert at["2x"]["best other"]["psnr"] == pytest.approx(42)


def test_a_curve_is_not_extrapolated_to_a_speed():
    rows = [*curve("keystep", "auto", 50, (40, 50)), *curve("fewer steps", "UniPC", 42)]
    assert list(summarize(rows)["at"]["m"]) == ["2x"]


def test_one_method_twice():
    curves = make_curves(ROWS)
    table = tabulate_pairs("m", curves, ROWS)
    (line,) = table.rows
    assert line == (
        "fbcache", "diffusers: FirstBlockCache", "+3.0 dB", "+3.0 to +3.0", "2 of 3", "0 of 1",
    )  # fmt: skip


def test_a_rival_beaten_at_less_compute_than_it_has():
    rows = [
        *curve("keystep", "fbcache", 50, (20, 30)),
        *curve("diffusers", "FirstBlockCache", 40, (40, 60, 100)),
    ]
    (line,) = tabulate_pairs("m", make_curves(rows), rows).rows
    assert line[2:] == (MISSING, MISSING, "0 of 3", "1 of 2")  # what skips nothing is none of them


def test_a_rival_that_fails_or_does_nothing():
    own = curve("keystep", "seacache", 40)
    failed = row("diffusers", "SeaCache", "", None, error="IndexError: no")
    assert tabulate_pairs("m", make_curves(own), [*own, failed]).rows[0][2] == "IndexError: no"
    idle = [row("diffusers", "SeaCache", "", math.inf, prompt=prompt) for prompt in "ab"]
    assert "skips nothing" in tabulate_pairs("m", make_curves([*own, *idle]), own).rows[0][2]


def test_gains_at_points_of_another_curve():
    curves = {each.family: each for each in make_curves(ROWS)}
    assert gains_at(curves["keystep: auto"], curves["fewer steps: UniPC"]) == pytest.approx([8.0] * 5)


def test_the_best_is_named_and_what_is_no_curve_left_out():
    table = tabulate_gains("m", make_curves(ROWS))
    assert table.lead.startswith("Best: keystep: auto on static.")
    assert table.lead.endswith(": diffusers: FirstBlockCache.")
    assert "diffusers: FirstBlockCache" not in [line[0] for line in table.rows]
