"""Laws of BD-PSNR and of the curves it compares."""

import math

import numpy as np
import pytest

from keystep.lab.curves import Curve, bd_psnr, compare, gains_at, make_curves
from keystep.lab.rows import QualityRow
from keystep.metrics.quality import Quality

COMPUTE = np.array([0.2, 0.3, 0.4, 0.6])
PSNR = np.array([25.0, 31.0, 34.0, 40.0])


def row(setting, prompt, compute, psnr, method="m"):
    quality = Quality(psnr, 1.0, 0.0, (psnr,))
    return QualityRow(
        part="quality", model="x", source="s", method=method, setting=setting, is_default=False,
        prompt=prompt, to_plain=quality, flops=round(1000 * compute), plain_flops=1000,
    )  # fmt: skip


def test_a_curve_has_no_gain_over_itself():
    assert bd_psnr(COMPUTE, PSNR, COMPUTE, PSNR) == (0.0, 0.25, 0.5)


def test_a_shift_is_the_gain_and_turns_its_sign():
    assert bd_psnr(COMPUTE, PSNR + 3, COMPUTE, PSNR)[0] == pytest.approx(3)
    assert bd_psnr(COMPUTE, PSNR, COMPUTE, PSNR + 3)[0] == pytest.approx(-3)


def test_lines_over_the_logarithm_have_the_gain_of_their_middle():
    other = np.array([0.15, 0.25, 0.35, 0.45, 0.8])  # other abscissae, the same kind of line
    found = bd_psnr(COMPUTE, 10 * np.log(COMPUTE), other, 4 * np.log(other))
    middle = (math.log(0.25) + math.log(0.5)) / 2
    assert found[0] == pytest.approx(6 * middle, abs=1e-9)


def test_nothing_is_extrapolated():
    short = np.array([0.1, 0.2, 0.3, 0.4])
    assert bd_psnr(short, PSNR, COMPUTE, PSNR)[1:] == (0.25, 0.4)
    assert bd_psnr(COMPUTE + 0.4, PSNR, COMPUTE, PSNR) is None
    assert bd_psnr(COMPUTE[:3], PSNR[:3], COMPUTE, PSNR) is None


def test_curves_ascend_and_leave_out_what_is_not_whole():
    rows = [row("slow", p, 0.6, 40.0) for p in "ab"] + [row("fast", p, 0.3, 30.0) for p in "ab"]
    (curve,) = make_curves([*rows, row("begun", "a", 0.4, 35.0)])
    assert curve.settings == ("fast", "slow")
    assert curve.videos == (("a", 0), ("b", 0))


def test_equal_compute_counts_once_and_identical_videos_not_at_all():
    rows = [row(str(i), "a", c, p) for i, (c, p) in enumerate([(0.3, 30.0), (0.3, 34.0), (1.0, math.inf)])]
    (curve,) = make_curves(rows)
    x, y = curve.points
    assert x.tolist() == [0.3]
    assert y.tolist() == [32.0]


def test_the_interval_holds_the_gain_and_widens_with_scatter():
    generator = np.random.default_rng(1)
    videos = tuple((str(index), 0) for index in range(20))

    def curve(gain, scatter):
        noise = generator.normal(scale=scatter, size=(1, 20))  # a video is easy or hard at every setting
        return Curve("x", tuple("abcd"), np.tile(COMPUTE[:, None], 20), PSNR[:, None] + gain + noise, videos)

    reference = curve(0, 0)
    narrow, wide = compare(curve(2, 0.5), reference), compare(curve(2, 5), reference)
    assert narrow.low < narrow.gain < narrow.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 3
    single = [
        Curve(c.family, c.settings, c.compute[:, :1], c.psnr[:, :1], videos[:1]) for c in (reference,) * 2
    ]
    assert compare(*single).low is None


def test_curves_are_compared_on_the_videos_that_both_have():
    """A method that ran on the easy videos alone gains nothing by it."""
    videos = (("hard", 0), ("easy", 0))
    psnr = np.stack([PSNR, PSNR + 20], axis=1)
    both = Curve("x", tuple("abcd"), np.tile(COMPUTE[:, None], 2), psnr, videos)
    easy, neither = both.on(videos[1:]), both.on([])
    assert compare(easy, both).gain == pytest.approx(0) == compare(both, easy).gain
    assert gains_at(easy, both) == pytest.approx([0.0] * 4)
    assert compare(both, neither) is None
    assert gains_at(both, neither) == []
