"""The BEV grid: rows are y, columns are x."""

import pytest
import torch
import torch.nn.functional as functional

from dualview.geometry import BevGrid


def test_sampling_a_hot_cell_at_its_own_centre() -> None:
    grid = BevGrid(-10.0, -20.0, 0.5, columns=40, rows=80)
    row, column = 13, 29
    bev = torch.zeros(1, 1, grid.rows, grid.columns)
    bev[0, 0, row, column] = 1.0
    center = grid.cell_centers()[row, column]
    assert center.tolist() == pytest.approx([-10 + 29.5 * 0.5, -20 + 13.5 * 0.5])
    location = 2 * grid.normalized(center.view(1, 1, 1, 2)) - 1
    assert functional.grid_sample(bev, location, align_corners=False).item() == pytest.approx(1.0)


def test_centered_grid_has_the_published_extent() -> None:
    grid = BevGrid.centered(51.2, 0.8)
    assert (grid.columns, grid.rows) == (128, 128)
    assert (grid.x_max, grid.y_max) == pytest.approx((51.2, 51.2))


def test_impossible_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="is not a grid"):
        BevGrid(0, 0, -1.0, 10, 10)


def test_grids_of_other_heights_have_the_same_cells() -> None:
    grid = BevGrid.centered(51.2, 0.8)
    assert grid.same_cells(BevGrid.centered(51.2, 0.8, -10.0, 10.0)) and grid != BevGrid.centered(51.2, 0.8, -10.0, 10.0)
    assert not grid.same_cells(BevGrid.centered(51.2, 1.6)) and not grid.same_cells(BevGrid.centered(50.4, 0.8))
