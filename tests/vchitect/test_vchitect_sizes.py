"""Sizes in words."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from keystep.models.vchitect.pipeline import VchitectPipeline


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ({}, (432, 768, 40)),
        ({"resolution": "240p"}, (240, 432, 40)),
        ({"resolution": "352p", "aspect": "9:16", "seconds": 2}, (624, 352, 16)),
        ({"seconds": 0.5}, (432, 768, 4)),
        ({"height": 320, "width": 512, "num_frames": 7}, (320, 512, 7)),
    ],
)
def test_sizes(words: dict[str, Any], size: tuple[int, ...]) -> None:
    arguments = VchitectPipeline.size_arguments(**words)
    assert tuple(arguments.values()) == size
    assert set(arguments) <= set(inspect.signature(VchitectPipeline.__call__).parameters)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"resolution": "720p"}, "resolution: given '720p', allowed: 240p, 288p, 352p, 432p"),
        ({"aspect": "4:3"}, "aspect: given '4:3', allowed: 16:9, 9:16"),
        ({"seconds": 0}, "seconds: given 0"),
        ({"seconds": 2, "num_frames": 16}, "seconds: given 2, allowed: nothing beside num_frames"),
        ({"num_frames": 0}, "num_frames: given 0"),
        ({"height": 320}, "width: given None, allowed: .* go together"),
        ({"height": 330, "width": 512}, "height: given 330, allowed: a multiple of 16, such as 336"),
        ({"height": 320, "width": 512, "resolution": "240p"}, "resolution, aspect: given '240p'"),
    ],
)
def test_bad_sizes(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VchitectPipeline.size_arguments(**words)
