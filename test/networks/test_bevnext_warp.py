"""Maps of one moment on the grid of another: exact for whole cells and quarter turns, still where the world is still."""

import math

import pytest
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_warp import planar, warp_bev

GRID = BevGrid.centered(8.0, 1.0)


def pose(x: float, y: float, yaw: float = 0.0) -> torch.Tensor:
    """world_from_ego [4, 4] (float64)."""
    c, s = math.cos(yaw), math.sin(yaw)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[c, -s], [s, c]])
    matrix[:2, 3] = torch.tensor([x, y])
    return matrix


def motion(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """source_from_target [1, 3, 3] of two poses."""
    return planar(torch.linalg.inv(source) @ target)[None]


def test_whole_cells_are_moved_exactly() -> None:
    features = torch.randn(1, 3, 16, 16)
    # The vehicle drove 2 m ahead and 3 m to the right: what lay at a cell is now 2 columns back and 3 rows up.
    moved = warp_bev(features, motion(pose(0, 0), pose(2, -3)), GRID)
    assert torch.allclose(moved[..., 3:, :14], features[..., :13, 2:], atol=1e-6)
    assert moved[..., :3, :].eq(0).all() and moved[..., 14:].eq(0).all()


def test_a_quarter_turn_is_about_the_vehicle() -> None:
    features = torch.randn(1, 2, 16, 16)
    # After a turn to the left, what lay ahead (+x) lies to the right (-y).
    turned = warp_bev(features, motion(pose(0, 0), pose(0, 0, math.pi / 2)), GRID)
    assert torch.allclose(turned, features.rot90(-1, (-1, -2)), atol=1e-5)
    ahead = torch.zeros(1, 1, 16, 16)
    ahead[0, 0, 8, 14] = 1.0  # (6.5, 0.5) m
    turned = warp_bev(ahead, motion(pose(0, 0), pose(0, 0, math.pi / 2)), GRID)
    assert turned[0, 0, 1, 8] == pytest.approx(1.0, abs=1e-5)  # (0.5, -6.5) m


def test_a_thing_that_stands_still_is_found_where_it_stands() -> None:
    source, target = pose(4000.0, 1000.0, 0.4), pose(4001.3, 1000.9, 0.55)
    place = source @ torch.tensor([2.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    cells = GRID.cell_centers()
    bump = (-(cells - torch.tensor([2.0, 1.0])).square().sum(-1) / 4.0).exp().view(1, 1, 16, 16)
    moved = warp_bev(bump, motion(source, target), GRID)[0, 0]
    seen = (moved.unsqueeze(-1) * cells).sum((0, 1)) / moved.sum()
    expected = (torch.linalg.inv(target) @ place)[:2].float()
    assert torch.allclose(seen, expected, atol=0.05)


def test_mirrored_and_scaled_frames_are_served() -> None:
    features = torch.randn(1, 1, 16, 16)
    mirror = torch.diag(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))[None]
    assert torch.allclose(warp_bev(features, mirror, GRID), features.flip(-2), atol=1e-5)


def test_half_precision_maps_keep_their_places() -> None:
    features = torch.randn(1, 1, 16, 16).bfloat16()
    moved = warp_bev(features, motion(pose(0, 0), pose(2, 0)), GRID)
    assert moved.dtype == torch.bfloat16 and torch.equal(moved[..., :14], features[..., 2:])


def test_gradients_flow_to_the_map() -> None:
    features = torch.randn(2, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    matrices = torch.cat([motion(pose(0, 0), pose(0.3, 0.2, 0.1)), motion(pose(0, 0), pose(1.5, 0))])
    weights = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    (warp_bev(features, matrices, GRID) * weights).sum().backward()
    step = torch.randn_like(features)
    with torch.no_grad():  # the warp is linear: the gradient is the difference quotient
        rise = (
            (warp_bev(features + step, matrices, GRID) - warp_bev(features, matrices, GRID)) * weights
        ).sum()
    assert float((features.grad * step).sum()) == pytest.approx(float(rise), rel=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the grid 16x16"):
        warp_bev(torch.zeros(1, 1, 8, 8), torch.eye(3)[None], GRID)
    with pytest.raises(ValueError, match="source_from_target must be"):
        warp_bev(torch.zeros(2, 1, 16, 16), torch.eye(3)[None], GRID)
