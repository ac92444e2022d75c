"""BEV maps of a working frame that is turned by quarter turns against the ego frame: the same cells, renamed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dualview.detectors.output import BevMap
from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import invert_rigid, transform_points

_TOLERANCE = 1e-3


def quarter_turns(working_from_ego: Tensor) -> int | None:
    """How often working_from_ego [4, 4] turns by 90 degrees about z, 0..3; None if it does anything else but
    shift.
    """
    turns = (
        round(math.atan2(float(working_from_ego[1, 0]), float(working_from_ego[0, 0])) / (math.pi / 2)) % 4
    )
    cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[turns]
    found = working_from_ego[:3, :3].double().cpu()
    wanted = found.new_tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    near = torch.allclose(found, wanted, atol=_TOLERANCE)
    return turns if near else None


def check_working_frame(working_from_ego: Tensor) -> int:
    """`quarter_turns`. Raises ValueError if a BEV map of that frame is no grid in the ego frame."""
    turns = quarter_turns(working_from_ego)
    if turns is None:
        raise ValueError(
            "working_from_ego must be quarter turns (multiples of 90 degrees) about z and a shift: the BEV map lies in that frame"
        )
    return turns


def bev_map_in_ego(features: Tensor, grid: BevGrid, valid: Tensor, working_from_ego: Tensor) -> BevMap:
    """A map [C, Y, X] of the working frame's grid, and which of its cells hold something, as the ego frame has them."""
    return BevMap(
        map_in_ego(features, working_from_ego), grid_in_ego(grid, working_from_ego), map_in_ego(valid, working_from_ego)
    )


def map_in_ego(values: Tensor, working_from_ego: Tensor) -> Tensor:
    """Values [..., Y, X] of a working grid's cells, laid out as rows and columns of `grid_in_ego`."""
    return values.rot90(check_working_frame(working_from_ego), (-2, -1))


def grid_in_ego(grid: BevGrid, working_from_ego: Tensor) -> BevGrid:
    """The same cells as `grid` (working frame), seen from the ego frame."""
    turns = check_working_frame(working_from_ego)
    corners = torch.tensor(
        [[grid.x_min, grid.y_min, grid.z_min], [grid.x_max, grid.y_max, grid.z_max]], dtype=torch.float64
    )
    ego = transform_points(invert_rigid(working_from_ego.double().cpu()), corners)
    low, high = ego.amin(0).tolist(), ego.amax(0).tolist()
    columns, rows = (grid.columns, grid.rows) if turns % 2 == 0 else (grid.rows, grid.columns)
    return BevGrid(low[0], low[1], grid.resolution, columns, rows, low[2], high[2])
