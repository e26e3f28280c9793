import math
from dataclasses import replace

from keystep.metrics.outcome import Spread, Summary
from keystep.report import HEADINGS, format_row, to_markdown

SUMMARY = Summary(
    method="adacache",
    num_videos=3,
    speedup=Spread(1.5, 1.25, 2.0, 6),
    end_to_end=Spread(1.4, 1.2, 1.9, 6),
    compute_ratio=0.6,
    realised=0.9,
    psnr=31.25,
    psnr_low=28.0,
    ssim=0.95,
    flicker_error=0.01,
    key_steps=Spread(12, 10, 14, 3),
    num_evaluations=30,
    cache_bytes=3 * 1024 * 1024,
    hidden_states=2.0,
)


def test_every_heading_has_its_cell():
    row = {name: str(cell) for name, cell in format_row(SUMMARY).items()}
    assert list(row) == list(HEADINGS)
    assert row["speed-up"] == "1.50x (1.25 to 2.00, 6 pairs)"
    assert row["compute"] == "0.600"
    assert row["PSNR"] == "31.2 (10 %: 28.0)"
    assert row["key steps"] == "12/30 (10 to 14)"
    assert row["cache"] == "3.0 MiB (2.00 hidden states)"


def test_a_single_pair_and_a_single_video_claim_no_spread():
    alone = replace(SUMMARY, num_videos=1, speedup=Spread(1.5, 1.5, 1.5, 1), key_steps=Spread(12, 12, 12, 1))
    row = format_row(alone)
    assert str(row["speed-up"]) == "1.50x (1 pair)"
    assert str(row["PSNR"]) == "31.2"
    assert str(row["key steps"]) == "12/30"


def test_identical_is_a_word():
    assert str(format_row(replace(SUMMARY, psnr=math.inf, psnr_low=math.inf))["PSNR"]) == "identical"


def test_what_was_not_measured_is_a_dash():
    empty = replace(SUMMARY, **{name: None for name in vars(SUMMARY) if name not in ("method", "num_videos")})
    assert {str(cell) for name, cell in format_row(empty).items() if name != "method"} == {"–"}


def test_markdown_has_a_line_a_method_of_equal_width():
    lines = to_markdown([SUMMARY, SUMMARY]).splitlines()
    assert len(lines) == 4
    assert {line.count("|") for line in lines} == {len(HEADINGS) + 1}
