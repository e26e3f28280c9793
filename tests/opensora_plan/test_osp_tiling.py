"""Chunks, tiles and blends, with functions whose results are known."""

from __future__ import annotations

import pytest
import torch

from keystep.models.opensora_plan.tiling import Tiling, blend, chunks

FACTOR = 8


def enlarge(z: torch.Tensor) -> torch.Tensor:
    """Every latent 8 x 8 pixels, every latent frame but the first four frames."""
    frames = torch.cat([z[:, :, :1], z[:, :, 1:].repeat_interleave(4, dim=2)], dim=2)
    return frames.repeat_interleave(FACTOR, dim=3).repeat_interleave(FACTOR, dim=4)


@pytest.mark.parametrize(
    ("num_frames", "size", "expected"),
    [
        (56, 17, [(0, 17), (16, 33), (32, 49), (48, 56)]),  # 221 frames
        (17, 17, [(0, 17)]),
        (18, 17, [(0, 17), (16, 18)]),
        (33, 17, [(0, 17), (16, 33)]),
        (1, 17, [(0, 1)]),
        (2, 17, [(0, 2)]),
        (5, 3, [(0, 3), (2, 5)]),
        (221, 65, [(0, 65), (64, 129), (128, 193), (192, 221)]),
    ],
)
def test_chunks_share_one_frame(num_frames: int, size: int, expected: list) -> None:
    assert chunks(num_frames, size) == expected


@pytest.mark.parametrize("num_frames", range(1, 40))
@pytest.mark.parametrize("size", [2, 3, 17])
def test_every_frame_is_in_a_chunk(num_frames: int, size: int) -> None:
    parts = chunks(num_frames, size)
    kept = [range(start + (start > 0), stop) for start, stop in parts]
    assert [frame for part in kept for frame in part] == list(range(num_frames))
    assert all(stop - start <= size for start, stop in parts)


@pytest.mark.parametrize("shape", [(1, 2, 5, 4, 4), (2, 2, 1, 9, 4), (1, 2, 7, 10, 13), (1, 1, 2, 3, 17)])
def test_a_function_of_single_pixels_is_the_same_in_tiles(shape: tuple[int, ...]) -> None:
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(size=4, size_out=4 * FACTOR, frames=3, overlap=0.25)
    torch.testing.assert_close(tiling.apply(enlarge, z), enlarge(z))


def test_the_released_sizes_cut_512_pixels_into_nine_tiles() -> None:
    seen = []

    def count(z: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(z.shape[2:]))
        return enlarge(z)

    z = torch.zeros(1, 1, 18, 64, 64)
    assert Tiling(32, 256, 17, 0.25).apply(count, z).shape == (1, 1, 69, 512, 512)
    rows = [(h, w) for h in (32, 32, 16) for w in (32, 32, 16)]
    assert seen == [(17, *size) for size in rows] + [(2, *size) for size in rows]


@pytest.mark.parametrize(
    ("shape", "is_needed"),
    [
        ((1, 4, 17, 32, 32), False),
        ((1, 4, 18, 8, 8), True),
        ((1, 4, 1, 33, 8), True),
        ((1, 4, 1, 8, 33), True),
    ],
)
def test_one_tile_is_enough(shape: tuple[int, ...], is_needed: bool) -> None:
    assert Tiling(32, 256, 17, 0.25).is_needed(torch.zeros(shape)) == is_needed


def test_a_blend_fades_linearly_and_never_reaches_the_new_tile() -> None:
    old, new = torch.zeros(1, 1, 1, 4, 2), torch.ones(1, 1, 1, 4, 2)
    blend(old, new, 4, 3)
    assert new[0, 0, 0, :, 0].tolist() == [0, 0.25, 0.5, 0.75]
    narrow = torch.ones(1, 1, 1, 4, 1)
    blend(old, narrow, 4, 4)  # as wide as the narrower of the two
    assert narrow[0, 0, 0, :, 0].tolist() == [0] * 4


def test_a_corner_is_blended_with_neighbours_that_are_blended_themselves() -> None:
    """Constant tiles a b / c d: the left one was faded from the one above it, and so was the upper one."""
    values = iter((1.0, 2.0, 4.0, 8.0))
    a, b, c, d = 1.0, 2.0, 4.0, 8.0
    size, extent = 8, 4

    def constant(z: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 1, 1, size, size), next(values))

    z = torch.zeros(1, 1, 1, 8, 8)
    # stride 4: tiles start at 0 and 4
    joined = Tiling(size=8, size_out=size, frames=2, overlap=0.5).apply(constant, z)[0, 0, 0]
    kept = size - extent
    for y in range(extent):
        for x in range(extent):
            down, right = y / extent, x / extent
            upper = a * (1 - right) + b * right
            # the left tile's last columns lie outside of the part that fades
            left = a * (1 - down) + c * down
            own = upper * (1 - down) + d * down
            expected = left * (1 - right) + own * right
            assert joined[kept + y, kept + x].item() == pytest.approx(expected)
