"""Images and videos as tensors: every accepted form is the same picture, and fills the frame undistorted."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch

from keystep.models.opensora import frames

BYTES = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)  # (T, H, W, 3)
FORMS = {
    "bytes": BYTES,
    "floats": BYTES / np.float32(255),
    "flipped twice": np.ascontiguousarray(BYTES[:, ::-1])[:, ::-1],
    "tensor": torch.from_numpy(BYTES).permute(0, 3, 1, 2),
    "images": [PIL.Image.fromarray(frame) for frame in BYTES],
    "arrays": list(BYTES),
    "with alpha": [PIL.Image.fromarray(frame).convert("RGBA") for frame in BYTES],
}


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_the_same_video(form):
    expected = torch.from_numpy(BYTES).permute(0, 3, 1, 2) / 255
    (video,) = frames.read_videos(FORMS[form], 1)
    torch.testing.assert_close(video, expected)
    (image,) = frames.read_images(FORMS[form][0], 1)
    torch.testing.assert_close(image, expected[:1])


def test_one_for_all_prompts_or_one_for_each():
    assert len(frames.read_videos(BYTES, 3)) == 1
    for many in ([BYTES] * 3, np.stack([BYTES] * 3), [list(BYTES)] * 3):
        assert [tuple(video.shape) for video in frames.read_videos(many, 3)] == [(5, 3, 8, 6)] * 3
    assert len(frames.read_images(list(BYTES[:3]), 3)) == 3
    with pytest.raises(ValueError, match="video: given '2 of them', allowed: one, or 3"):
        frames.read_videos([BYTES] * 2, 3)


@pytest.mark.parametrize(
    "wrong",
    [None, 3, [], np.zeros((8, 6, 3)), [np.zeros((8, 6, 3)), np.zeros((8, 7, 3))], [np.zeros((8, 6))]],
)
def test_what_is_no_video(wrong):
    with pytest.raises(ValueError, match="video: given"):
        frames.read_videos(wrong, 1)


@pytest.mark.parametrize("size", [(20, 60), (60, 20), (37, 41)])
def test_filling_keeps_the_aspect_and_the_middle(size):
    # a ramp along each axis, and a constant colour
    rows, columns = torch.linspace(0, 1, 100), torch.linspace(0, 1, 140)
    ramps = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    video = torch.cat([ramps, torch.full((1, 100, 140), 0.25)])[None]
    filled = frames.fill(video, *size)
    assert filled.shape == (3, 1, *size)
    down, right, constant = (filled[:, 0] + 1) / 2
    torch.testing.assert_close(constant, torch.full(size, 0.25))
    scale = max(size[0] / 100, size[1] / 140)
    steps = down[:, 0].diff()[5:-5], right[0].diff()[5:-5]  # bicubic is uneven near the border
    expected = 1 / 99 / scale, 1 / 139 / scale
    for step, value in zip(steps, expected, strict=True):
        torch.testing.assert_close(step, torch.full_like(step, value), rtol=0.05, atol=1e-4)
    for ramp in (down, right):
        assert abs(ramp.mean() - 0.5) < 0.02


def test_a_video_of_the_size_stays_as_it_is():
    video = torch.rand(2, 3, 7, 9)
    assert torch.equal(frames.fill(video, 7, 9), video.transpose(0, 1) * 2 - 1)
