"""Dense label maps, and what BEV augmentation does to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.teachers.bev_pooling import BevLabel


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
    source = _source_cells(grid, working_from_ego)
    mask = label.mask.flatten()[source.clamp(min=0)] & (source >= 0)
    return DenseLabel(label.features.flatten(1)[:, source.clamp(min=0)] * mask, mask)


def warp_cells(label: BevLabel, grid: BevGrid, working_from_ego: Tensor) -> BevLabel:
    """The same of a label that holds its occupied cells only."""
    place = torch.full((grid.rows * grid.columns,), -1)
    place[label.cells] = torch.arange(len(label.cells))
    source = _source_cells(grid, working_from_ego).flatten()
    taken = torch.where(source >= 0, place[source.clamp(min=0)], -1)
    cells = (taken >= 0).nonzero()[:, 0]
    rows = taken[cells]
    return BevLabel(cells, label.features[rows], label.points[rows])


def _source_cells(grid: BevGrid, working_from_ego: Tensor) -> Tensor:
    """int64 [Y, X]: for each cell of the working frame the cell of the ego frame that it takes over, row *
    columns + column; -1 outside.
    """
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, :2] = working_from_ego[:2, :2].double()
    if working_from_ego.shape[-1] == 4:
        matrix[:2, 2] = working_from_ego[:2, 3].double()
    centers = grid.cell_centers().double()
    source = torch.linalg.solve(matrix[:2, :2], (centers - matrix[:2, 2]).unsqueeze(-1)).squeeze(-1)
    index = (grid.normalized(source) * source.new_tensor([grid.columns, grid.rows])).floor().long()
    inside = ((index >= 0) & (index < torch.tensor([grid.columns, grid.rows]))).all(-1)
    return torch.where(inside, index[..., 1] * grid.columns + index[..., 0], -1)
