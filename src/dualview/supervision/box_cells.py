"""Boxes on the bird's-eye-view grid: which can be used there, and which cells each one covers."""

from __future__ import annotations

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid


def offsets_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Points [P, 2 or 3] (m) along the own axes of boxes [M, >=7] (centre, length, width, height, yaw), from the
    centre: [M, P, 2 or 3] m.
    """
    offset = points.unsqueeze(0) - boxes[:, None, : points.shape[1]]
    cos, sin = boxes[:, 6:7].cos(), boxes[:, 6:7].sin()
    x = offset[..., 0] * cos + offset[..., 1] * sin
    y = -offset[..., 0] * sin + offset[..., 1] * cos
    return torch.stack([x, y, *offset[..., 2:].unbind(-1)], -1)


def usable_boxes(boxes: Tensor, grid: BevGrid) -> Tensor:
    """Which boxes [M, >=7] are finite, have a size, and their centre inside the grid: bool [M]."""
    finite = boxes[:, :7].isfinite().all(1) & (boxes[:, 3:6] > 0).all(1)
    x, y = boxes[:, 0], boxes[:, 1]
    return finite & (x >= grid.x_min) & (x < grid.x_max) & (y >= grid.y_min) & (y < grid.y_max)


def object_cells(boxes: Tensor, grid: BevGrid) -> Tensor:
    """Foreground of the grid, int64 [Y, X]: 1 + index of the box [M, >=7] that a cell is of, 0 = background.

    A cell is of a box if its centre lies in the box's rotated rectangle, or if the box's centre lies in the cell,
    so that small objects have one too. Where boxes overlap the smaller one keeps the cell. Boxes without a finite
    place and a size are left out.
    """
    centers = grid.cell_centers().to(boxes.device, torch.float64).flatten(0, 1)  # [Y X, 2]
    result = torch.zeros(len(centers), dtype=torch.int64, device=boxes.device)
    geometry = boxes[:, :7].double()
    good = geometry.isfinite().all(1) & (geometry[:, 3:6] > 0).all(1)
    if not bool(good.any()):
        return result.view(grid.rows, grid.columns)
    number = good.nonzero()[:, 0]
    geometry = geometry[good]
    order = (geometry[:, 3] * geometry[:, 4]).argsort(descending=True, stable=True)
    number, geometry = number[order], geometry[order]
    inside = (offsets_in_boxes(centers, geometry).abs() <= geometry[:, None, 3:5] / 2).all(-1)  # [M, Y X]
    lower = geometry.new_tensor([grid.x_min, grid.y_min])
    column, row = ((geometry[:, :2] - lower) / grid.resolution).floor().unbind(1)
    on_grid = (column >= 0) & (row >= 0) & (column < grid.columns) & (row < grid.rows)
    own = (row * grid.columns + column)[on_grid].long()
    inside[on_grid.nonzero()[:, 0], own] = True
    # The last box of the list, the smallest, wins.
    rank = torch.arange(1, len(number) + 1, device=boxes.device)
    winner = (inside * rank[:, None]).amax(0)
    result = torch.where(winner > 0, number[(winner - 1).clamp(min=0)] + 1, result)
    return result.view(grid.rows, grid.columns)
