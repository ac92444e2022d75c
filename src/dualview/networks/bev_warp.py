"""A bird's-eye-view map of one moment on the grid of another, by the ego motion in between (BEVDet4D: Huang & Huang
2022, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid


def planar(transform: Tensor) -> Tensor:
    """Transforms of space [..., 4, 4] as transforms of the ground plane [..., 3, 3]: of points with z = 0, dropping
    the z that they get. Roll and pitch shorten the plane a little; a vehicle's are small.
    """
    kept = [0, 1, 3]
    return transform[..., kept, :][..., kept]


def warp_bev(
    features: Tensor, source_from_target: Tensor, grid: BevGrid, corner_aligned: bool = False
) -> Tensor:
    """features [M, C, Y, X], on `grid` in a source frame, resampled onto the same grid in a target frame.

    source_from_target [M, 3, 3] from `planar`: takes points (x, y, 1) of the target frame (m) to the source frame; it
    may also mirror and scale. Bilinear, zero outside the source map; gradients flow to the features. The cells' places
    are computed in float64. `corner_aligned` takes a cell's lower corner for its place, as BEVDet4D's published weights
    do: the same for translations, half a cell off the centre of rotations.

    Raises ValueError if the features aren't on `grid` or the matrices don't fit.
    """
    if tuple(features.shape[-2:]) != (grid.rows, grid.columns):
        raise ValueError(
            f"features are {features.shape[-2]}x{features.shape[-1]} cells, the grid {grid.rows}x{grid.columns}: "
            "warp maps on the grid they were made on"
        )
    if source_from_target.shape != (len(features), 3, 3):
        raise ValueError(
            f"source_from_target must be [{len(features)}, 3, 3], got {list(source_from_target.shape)}"
        )
    offset = 0.0 if corner_aligned else 0.5
    target = _cell_places(grid, offset).to(features.device)  # [Y, X, 2]
    matrix = source_from_target.to(features.device, torch.float64)
    source = target.flatten(0, 1) @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]  # [M, Y X, 2]
    origin = source.new_tensor([grid.x_min, grid.y_min])
    size = source.new_tensor([grid.columns, grid.rows])
    index = (source - origin) / grid.resolution - offset  # 0 = the first cell itself
    # Far outside is as good as outside, and float32 has no trouble with it. Places are never rounded further.
    location = ((2 * index + 1) / size - 1).clamp(-4.0, 4.0)
    dtype = torch.promote_types(features.dtype, torch.float32)
    warped = functional.grid_sample(
        features.to(dtype),
        location.to(dtype).unflatten(1, (grid.rows, grid.columns)),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    return warped.to(features.dtype)


def _cell_places(grid: BevGrid, offset: float) -> Tensor:
    """(x, y) of each cell, [Y, X, 2] float64 m, `offset` cells from its lower corner."""
    x = grid.x_min + (torch.arange(grid.columns, dtype=torch.float64) + offset) * grid.resolution
    y = grid.y_min + (torch.arange(grid.rows, dtype=torch.float64) + offset) * grid.resolution
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
