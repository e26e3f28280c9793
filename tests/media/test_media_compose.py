import numpy as np
import pytest

from keystep.media import choose_scale, side_by_side, upscale


def solid(colour: tuple[float, float, float], height: int = 64, width: int = 80) -> np.ndarray:
    return np.full((3, height, width, 3), colour, np.float32)


def test_upscaling_makes_squares():
    video = np.random.default_rng(0).uniform(size=(2, 3, 4, 3))
    large = upscale(video, 3)
    assert large.shape == (2, 9, 12, 3)
    assert (large[:, 1::3, 1::3] == video).all()
    assert (large[:, ::3, 2::3] == video).all()


@pytest.mark.parametrize(("height", "scale"), [(32, 8), (64, 4), (200, 1), (256, 1), (720, 1)])
def test_only_tiny_videos_are_enlarged(height, scale):
    assert choose_scale(np.zeros((1, height, 8, 3))) == scale


def test_videos_appear_in_order_and_unchanged():
    red, blue = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
    row = side_by_side([solid(red), solid(blue)], ["one", "two"])
    assert row.shape[1] % 2 == 0
    assert row.shape[2] % 2 == 0

    def columns_of(colour):
        found = np.where(np.isclose(row[0], colour, atol=1e-6).all(-1).sum(0) == 64)[0]
        return found.min(), found.max(), len(found)

    first, last, count = columns_of(red)
    assert count == 80
    next_first, _, next_count = columns_of(blue)
    assert next_count == 80
    assert next_first > last > first


def test_labels_are_drawn_above_their_video():
    row = side_by_side([solid((0, 0, 0)), solid((0, 0, 0))], ["", "label"])
    text = row[0].max(-1) > 0.5
    assert text.any()
    columns, rows = np.where(text.any(0))[0], np.where(text.any(1))[0]
    assert columns.min() > 80
    assert rows.max() < row.shape[1] - 64


def test_long_labels_stay_within_their_video():
    row = side_by_side([solid((0, 0, 0)), solid((0, 0, 0))], ["a label much wider than the video", ""])
    columns = np.where((row[0].max(-1) > 0.3).any(0))[0]
    assert columns.max() < 2 + 80 + 2


def test_second_lines_need_room():
    one = side_by_side([solid((0, 0, 0))], ["a"])
    two = side_by_side([solid((0, 0, 0))], ["a\nb"])
    assert two.shape[1] > one.shape[1]


@pytest.mark.parametrize(
    ("videos", "labels", "message"),
    [
        ([], [], "0 videos"),
        ([solid((0, 0, 0))], ["a", "b"], "1 videos and 2 labels"),
        ([solid((0, 0, 0)), solid((0, 0, 0), 32)], ["a", "b"], "one shape"),
        ([np.zeros((2, 4, 4))], ["a"], r"not \(2, 4, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(videos, labels, message):
    with pytest.raises(ValueError, match=message):
        side_by_side(videos, labels)
