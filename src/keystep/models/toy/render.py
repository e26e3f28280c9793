"""Paints scenes as pixels: one saturated object on a grey background, edges smoothed over one pixel.

Shape suffixes: B clips, F frames, H rows, W columns, C colour channels; K shapes.
"""

import torch

from keystep.models.toy.grammar import COLOURS, SHAPES
from keystep.models.toy.scenes import IMAGE_SIZE, Scenes

PALETTE = torch.tensor(
    [
        [0.90, 0.15, 0.15],  # red
        [0.90, 0.85, 0.15],  # yellow
        [0.15, 0.80, 0.20],  # green
        [0.15, 0.80, 0.85],  # cyan
        [0.20, 0.30, 0.95],  # blue
        [0.75, 0.20, 0.85],  # purple
    ]
)
assert len(PALETTE) == len(COLOURS)
PATTERN_CELL = 8  # pixels: width of a stripe, side of a checker square
_SQUARE_HALF, _TRIANGLE_INRADIUS, _CROSS_ARM = 0.86, 0.60, 0.33  # in radii


def background_levels() -> torch.Tensor:
    """The five backgrounds as grey levels in [0, 1], float32 (len(BACKGROUNDS), H, W)."""
    cell = torch.arange(IMAGE_SIZE) // PATTERN_CELL % 2
    bright = {
        "striped": cell[None, :].expand(IMAGE_SIZE, IMAGE_SIZE),
        "checkered": cell[None, :] ^ cell[:, None],
    }
    plain = [torch.full((IMAGE_SIZE, IMAGE_SIZE), level) for level in (0.15, 0.45, 0.80)]
    return torch.stack(plain + [0.25 + 0.40 * pattern for pattern in bright.values()])


def coverage(dx: torch.Tensor, dy: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """How much of each pixel every shape covers.

    Args:
        dx: horizontal distance of the pixel from the centre, pixels, shape (...).
        dy: vertical distance, downwards, same shape.
        radius: nominal radius, pixels, broadcastable to (..., K).

    Returns:
        float32 in [0, 1], shape (..., K), in the order of `SHAPES`.
    """
    ax, ay = dx.abs(), dy.abs()
    offsets = torch.stack(  # distance outside a shape of radius zero; the radius is taken off below
        [
            (dx.square() + dy.square()).sqrt(),
            torch.maximum(ax, ay),
            torch.maximum(dy, 0.75**0.5 * ax - 0.5 * dy),
        ],
        dim=-1,
    )
    reach = torch.tensor([1.0, _SQUARE_HALF, _TRIANGLE_INRADIUS], device=dx.device)
    radius = radius.expand(*radius.shape[:-1], len(SHAPES))
    simple = offsets - reach * radius[..., :-1]
    bar = radius[..., -1]
    lying = torch.maximum(ax - bar, ay - _CROSS_ARM * bar)
    standing = torch.maximum(ax - _CROSS_ARM * bar, ay - bar)
    cross = torch.minimum(lying, standing)[..., None]
    return (0.5 - torch.cat([simple, cross], dim=-1)).clamp(0.0, 1.0)


def shape_areas() -> torch.Tensor:
    """Area of each shape at radius 1, float32 (K,), to turn a measured area into a radius."""
    circle = torch.pi
    square = (2 * _SQUARE_HALF) ** 2
    triangle = 3 * 3**0.5 * _TRIANGLE_INRADIUS**2
    cross = 8 * _CROSS_ARM - (2 * _CROSS_ARM) ** 2
    return torch.tensor([circle, square, triangle, cross])


def pixel_grid(device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of the pixels: x (1, W) and y (H, 1), float32, in pixels."""
    axis = torch.arange(IMAGE_SIZE, dtype=torch.float32, device=device) + 0.5
    return axis[None, :], axis[:, None]


def render(scenes: Scenes) -> torch.Tensor:
    """Paint a batch of scenes.

    Returns:
        float32 in [0, 1], shape (B, F, C, H, W).
    """
    x_1W, y_H1 = pixel_grid()
    dx = x_1W - scenes.x_BF[:, :, None, None]
    dy = y_H1 - scenes.y_BF[:, :, None, None]
    dx, dy = torch.broadcast_tensors(dx, dy)
    cover_BFHWK = coverage(dx, dy, scenes.radius_BF[:, :, None, None, None])
    row_B = torch.arange(len(scenes.shape_B))
    cover_BF1HW = cover_BFHWK[row_B, ..., scenes.shape_B][:, :, None]
    colour_B1C11 = PALETTE[scenes.colour_B][:, None, :, None, None]
    ground_B11HW = background_levels()[scenes.background_B][:, None, None]
    return ground_B11HW + cover_BF1HW * (colour_B1C11 - ground_B11HW)
