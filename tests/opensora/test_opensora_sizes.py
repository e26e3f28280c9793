"""Sizes of Open-Sora 1.2: the tables are the recorded ones, other sizes are errors that name the nearest."""

import json
from pathlib import Path

import pytest

from keystep.models.opensora import sizes

RECORDED = json.loads(
    (Path(__file__).parents[1] / "data/opensora12/text/resolutions_frames.json").read_text()
)


def test_the_tables_are_the_recorded_ones():
    recorded = {
        name: {ratio: tuple(size) for ratio, size in table["by_ratio_key"].items()}
        for name, table in RECORDED["resolutions"].items()
    }
    assert recorded == sizes.SIZES
    assert RECORDED["aspect_ratio_map"] == sizes.RATIO_OF_NAME
    assert RECORDED["num_frames_map"] == sizes.FRAMES_OF_DURATION
    assert RECORDED["image_fps"] == sizes.IMAGE_FPS


@pytest.mark.parametrize("resolution", RECORDED["resolutions"])
def test_aspects_by_name(resolution):
    for name, size in RECORDED["resolutions"][resolution]["by_name"].items():
        if size is not None:
            assert sizes.size_of(resolution, name) == tuple(size)
        else:
            with pytest.raises(ValueError, match=rf"aspect: given '{name}'.*nearest: \d"):
                sizes.size_of(resolution, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": "500p"}, "resolution: given '500p'.*nearest: 480p"),
        ({"resolution": "700"}, "resolution: given '700'.*nearest: 720p"),
        ({"resolution": "huge"}, "resolution: given 'huge', allowed: 144p"),
        ({"aspect": "9:15"}, "aspect: given '9:15'.*nearest: 5:8, 506 x 810"),
        ({"aspect": "wide"}, "aspect: given 'wide', allowed at 480p: 3:8"),
        ({"aspect": "1:0"}, "aspect: given '1:0', allowed at 480p: 3:8"),
        ({"seconds": 5}, "seconds: given 5, allowed: 2, 4, 8, 16, 32; nearest: 4"),
        ({"seconds": 2, "num_frames": 51}, "seconds: given 2 together with num_frames 51"),
        ({"num_frames": "5s"}, "num_frames: given '5s'.*nearest: 4s"),
        ({"num_frames": 0}, "num_frames: given 0.*nearest: 1"),
        ({"num_frames": 8}, "num_frames: given 8.*nearest: 1"),
        ({"num_frames": 16}, "num_frames: given 16.*nearest: 17"),
        ({"height": 480}, r"height, width: given \(480, None\)"),
        ({"height": 480, "width": 480, "resolution": "480p"}, "height, width: given 480, 480 together with"),
        ({"height": 480, "width": 8}, "width: given 8, allowed: whole pixels from 16"),
    ],
)
def test_other_sizes_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        sizes.size_arguments(**arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (480, 854, 51)),
        ({"resolution": "720p", "aspect": "16:9", "seconds": 2}, (1280, 720, 51)),
        ({"resolution": "256", "aspect": "1.0", "num_frames": 1}, (256, 256, 1)),
        ({"height": 100, "width": 200, "num_frames": "4s"}, (100, 200, 102)),
        ({"num_frames": "60"}, (480, 854, 60)),
        ({"num_frames": 17}, (480, 854, 17)),
    ],
)
def test_a_size_can_be_said_in_several_ways(arguments, expected):
    assert sizes.size_arguments(**arguments) == dict(
        zip(("height", "width", "num_frames"), expected, strict=True)
    )
