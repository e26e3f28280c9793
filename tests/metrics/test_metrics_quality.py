import math

import numpy as np
import pytest

from keystep.metrics.quality import (
    compare_videos,
    compute_flicker_error,
    compute_frame_psnr,
    compute_psnr,
    compute_ssim,
)


def grey(level: float, num_frames: int = 4) -> np.ndarray:
    return np.full((num_frames, 16, 16, 3), level)


def test_psnr_is_that_of_the_mean_squared_error():
    assert compute_psnr(grey(0.5), grey(0.6)) == pytest.approx(20.0)  # 10 log10(1 / 0.1**2)


def test_psnr_pools_frames_before_the_logarithm():
    video = grey(0.5, 2)
    video[1] += 0.1
    frames = compute_frame_psnr(video, grey(0.5, 2))
    assert frames == (math.inf, pytest.approx(20.0))
    assert compute_psnr(video, grey(0.5, 2)) == pytest.approx(10 * math.log10(1 / 0.005))


def test_identical_videos_are_infinitely_close():
    quality = compare_videos(grey(0.3), grey(0.3))
    assert quality.psnr == math.inf
    assert quality.ssim == pytest.approx(1.0)
    assert quality.flicker_error == 0


def test_small_differences_survive_half_precision_inputs():
    video = grey(0.5).astype(np.float16)
    assert compute_psnr(video, grey(0.5)) == math.inf
    assert math.isfinite(compute_psnr(grey(0.50001), grey(0.5)))


def test_flicker_error_sees_unsteadiness_that_psnr_does_not():
    shift, flicker = grey(0.5) + 0.1, grey(0.5)
    flicker[::2] += 0.1
    flicker[1::2] -= 0.1
    assert compute_psnr(shift, grey(0.5)) == pytest.approx(compute_psnr(flicker, grey(0.5)))
    assert compute_flicker_error(shift, grey(0.5)) == pytest.approx(0)
    assert compute_flicker_error(flicker, grey(0.5)) == pytest.approx(0.2)


def test_a_single_frame_cannot_flicker():
    assert compute_flicker_error(grey(0.1, 1), grey(0.9, 1)) == 0


def test_ssim_is_the_mean_over_frames():
    noise = np.random.default_rng(0).uniform(size=(1, 16, 16, 3))
    reference = np.concatenate([grey(0.5, 1), noise])
    video = np.concatenate([noise, noise])
    first = compute_ssim(video[:1], reference[:1])
    assert first < 0.5
    assert compute_ssim(video, reference) == pytest.approx((first + 1) / 2)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (np.zeros((4, 16, 15, 3)), "differ in shape"),
        (np.zeros((4, 16, 16, 3), np.uint8), "uint8"),
        (np.full((4, 16, 16, 3), 1.5), "1.5"),
        (np.full((4, 16, 16, 3), np.nan), "nan"),
    ],
)
def test_what_is_no_video_is_refused(video, message):
    with pytest.raises(ValueError, match=message):
        compute_psnr(video, grey(0.5))


def test_wrong_rank_is_refused():
    with pytest.raises(ValueError, match="frames, height, width, 3"):
        compute_psnr(np.zeros((16, 16, 3)), np.zeros((16, 16, 3)))


def test_ssim_needs_its_window():
    with pytest.raises(ValueError, match="at least 7 pixels"):
        compute_ssim(np.zeros((2, 6, 16, 3)), np.zeros((2, 6, 16, 3)))
