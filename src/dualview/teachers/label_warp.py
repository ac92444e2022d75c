"""Dense label maps, and what BEV augmentation does to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid


@dataclass(frozen=True)
class DenseLabel:
    """features float16 [C, Y, X], zero where nothing is known; mask bool [Y, X]: where something is."""

    features: Tensor
    mask: Tensor


def warp_label(label: DenseLabel, grid: BevGrid, working_from_ego: Tensor) -> DenseLabel:
    """The label of a frame whose ego frame became another working frame, on the same grid.

    working_from_ego [3, 3] or [4, 4]: A, e.g. `BevAugmentation.matrix`; rotation, mirroring, scale and shift
    in the plane. Each cell takes over the cell that holds the place A^-1 c of its centre c (nearest: vectors
    are copied, never mixed across an object's edge). The place read is at most half a cell's diagonal from
    the right one; mirrored axes of a grid around the origin are exact. Cells from outside the grid are empty.
    """
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = working_from_ego[:2, :2].double()
    if working_from_ego.shape[-1] == 4:
        matrix[:2, 2] = working_from_ego[:2, 3].double()
    centers = grid.cell_centers().double()
    source = torch.linalg.solve(matrix[:2, :2], (centers - matrix[:2, 2]).unsqueeze(-1)).squeeze(-1)
    index = (grid.normalized(source) * source.new_tensor([grid.columns, grid.rows])).floor().long()
    inside = ((index >= 0) & (index < torch.tensor([grid.columns, grid.rows]))).all(-1)
    column, row = index[..., 0].clamp(0, grid.columns - 1), index[..., 1].clamp(0, grid.rows - 1)
    mask = label.mask[row, column] & inside
    return DenseLabel(label.features[:, row, column] * mask, mask)
