"""Lift-splat geometry: where light from a known pixel and depth ends up, and that nothing is lost on the
way.
"""

import pytest
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.lift_splat import (
    DepthBins,
    frustum,
    frustum_in_ego,
    lift_splat,
    plan_lift_splat,
    voxel_index,
)

GRID = BevGrid.centered(16.0, 1.0)
BINS = DepthBins(1.0, 21.0, 0.5)
IMAGE, FEATURE = (64, 128), (8, 16)


def camera(yaw: float = 0.0, height: float = 1.5) -> torch.Tensor:
    """image_from_ego [4, 4] of a level camera at the ego origin, looking along `yaw` (rad)."""
    forward = torch.tensor(
        [[0.0, -1, 0], [0, 0, -1], [1, 0, 0]], dtype=torch.float64
    )  # optical axes from ego axes
    c, s = torch.cos(torch.tensor(yaw)).double(), torch.sin(torch.tensor(yaw)).double()
    turn = torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=torch.float64)
    camera_from_ego = torch.eye(4, dtype=torch.float64)
    camera_from_ego[:3, :3] = forward @ turn
    camera_from_ego[:3, 3] = -camera_from_ego[:3, :3] @ torch.tensor([0.0, 0.0, height], dtype=torch.float64)
    intrinsics = torch.eye(4, dtype=torch.float64)
    intrinsics[:3, :3] = torch.tensor([[60.0, 0, 64], [0, 60, 32], [0, 0, 1]])
    return intrinsics @ camera_from_ego


def rig(*yaws: float) -> torch.Tensor:
    return torch.stack([camera(yaw) for yaw in yaws]).unsqueeze(0)


def test_frustum_points_project_back_onto_their_pixels():
    projection, template = rig(0.3), frustum(IMAGE, FEATURE, BINS)
    points = frustum_in_ego(template, projection)[0, 0].double()
    image = points @ projection[0, 0, :3, :3].T + projection[0, 0, :3, 3]
    assert torch.allclose(image[..., :2] / image[..., 2:], template[..., :2].double(), atol=1e-3)
    assert torch.allclose(image[..., 2], template[..., 2].double(), atol=1e-4)


@pytest.mark.parametrize("yaw", [0.0, 0.7, 2.5, -1.4])
def test_a_single_point_lights_exactly_its_cell(yaw):
    projection, template = rig(yaw), frustum(IMAGE, FEATURE, BINS)
    d, v, u = 17, 5, 3
    depth = torch.zeros(1, 1, BINS.count, *FEATURE)
    context = torch.zeros(1, 1, 2, *FEATURE)
    depth[0, 0, d, v, u] = 0.75
    context[0, 0, :, v, u] = torch.tensor([2.0, -4.0])
    bev = lift_splat(depth, context, plan_lift_splat(projection, None, template, GRID), GRID)
    # By hand: the pixel's ray, its depth along the optical axis, and the yaw of the camera.
    pixel_u, pixel_v, z = (float(x) for x in template[d, v, u])
    left, up = -(pixel_u - 64) / 60 * z, 1.5 - (pixel_v - 32) / 60 * z
    x = z * torch.cos(torch.tensor(yaw)) - left * torch.sin(torch.tensor(yaw))
    y = z * torch.sin(torch.tensor(yaw)) + left * torch.cos(torch.tensor(yaw))
    assert GRID.z_min < up < GRID.z_max
    expected = torch.zeros_like(bev)
    expected[0, :, int((y - GRID.y_min) // 1), int((x - GRID.x_min) // 1)] = torch.tensor([1.5, -3.0])
    assert torch.allclose(bev, expected)


@pytest.mark.parametrize("rounding", ["floor", "truncate"])
def test_mass_is_conserved(rounding):
    generator = torch.Generator().manual_seed(3)
    depth = torch.rand(2, 3, BINS.count, *FEATURE, generator=generator).softmax(2)
    context = torch.rand(2, 3, 4, *FEATURE, generator=generator)
    projection, template = rig(0.0, 2.1, -2.1).repeat(2, 1, 1, 1), frustum(IMAGE, FEATURE, BINS)
    plan = plan_lift_splat(projection, None, template, GRID, rounding)
    kept = torch.zeros(depth.numel())
    kept[plan.point] = 1.0
    expected = torch.einsum("bndhw,bnchw->bc", depth * kept.view_as(depth), context)
    assert torch.allclose(lift_splat(depth, context, plan, GRID).sum((2, 3)), expected, rtol=1e-4)
    assert 0.2 < kept.mean() < 1.0


def test_masked_cameras_pool_nothing():
    projection, template = rig(0.0, 2.1, -2.1), frustum(IMAGE, FEATURE, BINS)
    depth = torch.full((1, 3, BINS.count, *FEATURE), 1.0 / BINS.count)
    context = torch.ones(1, 3, 2, *FEATURE)
    mask = torch.tensor([[True, False, True]])
    masked = lift_splat(depth, context, plan_lift_splat(projection, mask, template, GRID), GRID)
    plan = plan_lift_splat(projection[:, ::2], None, template, GRID)
    assert torch.allclose(masked, lift_splat(depth[:, ::2], context[:, ::2], plan, GRID))
    context[:, 1] = float("nan")  # whatever a dead camera's network says must not matter
    again = lift_splat(depth, context, plan_lift_splat(projection, mask, template, GRID), GRID)
    assert torch.equal(again, masked)


def test_one_camera_and_seven_cameras():
    template = frustum(IMAGE, FEATURE, BINS)
    for yaws in ((0.0,), tuple(range(7))):
        plan = plan_lift_splat(rig(*yaws), None, template, GRID)
        depth = torch.rand(1, len(yaws), BINS.count, *FEATURE)
        bev = lift_splat(depth, torch.rand(1, len(yaws), 3, *FEATURE), plan, GRID)
        assert bev.shape == (1, 3, 32, 32) and bev.abs().sum() > 0


def test_batch_elements_do_not_mix():
    template = frustum(IMAGE, FEATURE, BINS)
    projection = torch.cat([rig(0.0), rig(1.0)])
    depth, context = torch.rand(2, 1, BINS.count, *FEATURE), torch.rand(2, 1, 3, *FEATURE)
    both = lift_splat(depth, context, plan_lift_splat(projection, None, template, GRID), GRID)
    for b in range(2):
        plan = plan_lift_splat(projection[b : b + 1], None, template, GRID)
        assert torch.allclose(both[b : b + 1], lift_splat(depth[b : b + 1], context[b : b + 1], plan, GRID))


def test_rounding_at_the_lower_border():
    lower, cell, size = (
        torch.tensor([-2.0, -2.0, -5.0]),
        torch.tensor([1.0, 1.0, 8.0]),
        torch.tensor([4, 3, 1]),
    )
    points = torch.tensor([
        [-2.5, 0.1, 0.0], [-1.5, 0.1, 0.0], [1.99, 0.99, 2.9], [2.0, 0.0, 0.0], [0.0, 0.0, -12.0],
        [float("nan"), 0.0, 0.0], [1e30, 0.0, 0.0],
    ])  # fmt: skip
    assert voxel_index(points, lower, cell, size).tolist() == [-1, 8, 11, -1, -1, -1, -1]
    assert voxel_index(points, lower, cell, size, "truncate").tolist() == [8, 8, 11, -1, 10, -1, -1]


def test_depth_bins():
    assert DepthBins(1.0, 60.0, 0.5).count == 118
    assert DepthBins(2.0, 5.0, 1.0).centers().tolist() == [2.5, 3.5, 4.5]
    with pytest.raises(ValueError, match="start < stop"):
        DepthBins(5.0, 1.0, 1.0)
