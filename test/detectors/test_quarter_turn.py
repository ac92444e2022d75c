"""Maps of a turned working frame, cell by cell."""

import math

import pytest
import torch

from dualview.detectors.quarter_turn import grid_in_ego, map_in_ego, quarter_turns
from dualview.geometry.bev_grid import BevGrid


def turned(angle: float, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


@pytest.mark.parametrize("turns", range(-1, 4))
def test_every_cell_keeps_its_place(turns: int) -> None:
    """Values that are their own cell's ego place, on a grid that is neither square nor centred."""
    working_from_ego = turned(turns * math.pi / 2, 0.7, -0.9, -1.8)
    grid = BevGrid(-4.0, -3.0, 0.5, columns=12, rows=20)
    cells = grid.cell_centers().double()  # working frame
    places = torch.cat([cells, torch.zeros(20, 12, 1), torch.ones(20, 12, 1)], -1)
    ego_places = (places @ torch.linalg.inv(working_from_ego).T)[..., :2].permute(2, 0, 1)
    ego_grid = grid_in_ego(grid, working_from_ego)
    moved = map_in_ego(ego_places, working_from_ego).permute(1, 2, 0)
    assert moved.shape[:2] == (ego_grid.rows, ego_grid.columns)
    torch.testing.assert_close(moved, ego_grid.cell_centers().double(), atol=1e-5, rtol=0)
    assert ego_grid.z_min == pytest.approx(grid.z_min + 1.8)


def test_other_turns_are_none() -> None:
    assert quarter_turns(turned(0.3)) is None
    tilted = torch.eye(4, dtype=torch.float64)[[2, 0, 1, 3]]
    assert quarter_turns(tilted) is None
    with pytest.raises(ValueError, match="multiples of 90 degrees"):
        map_in_ego(torch.zeros(2, 2), turned(0.3))
    with pytest.raises(ValueError, match="multiples of 90 degrees"):
        grid_in_ego(BevGrid.centered(1.0, 1.0), turned(0.3))
