"""Rectangles of projected boxes against dense sampling of the boxes' surfaces, near the camera plane and far from it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualview.geometry.box_projection import (
    ProjectionRule,
    VisibilityRule,
    box_corners,
    center_form,
    generalized_iou,
    project_boxes,
    rectangle_area,
    rectangle_iou,
    surface_depth,
)
from dualview.geometry.boxes import Boxes3D

SIZE = (450, 800)
OPTICAL = torch.tensor(  # working (x forward, y left, z up) -> camera (z forward, x right, y down)
    [[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64
)


def camera(focal: float = 630.0, yaw: float = 0.0) -> torch.Tensor:
    """Projection [4, 4] of a camera at 1.5 m, turned to the left by `yaw`."""
    intrinsics = torch.eye(4, dtype=torch.float64)
    intrinsics[0, 0] = intrinsics[1, 1] = focal
    intrinsics[0, 2], intrinsics[1, 2] = 400.0, 230.0
    c, s = math.cos(yaw), math.sin(yaw)
    turn = torch.eye(4, dtype=torch.float64)
    turn[:2, :2] = torch.tensor([[c, s], [-s, c]])
    return intrinsics @ OPTICAL @ turn


def faces_of(box: np.ndarray, steps: int) -> np.ndarray:
    """Points [6, steps, steps, 3] over the faces of a box, denser towards the faces' borders, where extremes lie."""
    grid = (1 - np.cos(np.linspace(0, np.pi, steps))) / 2 - 0.5
    a, b = np.meshgrid(grid, grid)
    faces = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            face = np.empty((steps, steps, 3))
            face[..., axis], face[..., (axis + 1) % 3], face[..., (axis + 2) % 3] = side, a, b
            faces.append(face)
    local = np.stack(faces) * box[3:6]
    c, s = np.cos(box[6]), np.sin(box[6])
    return local @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + box[:3]


def refined(one: np.ndarray, other: np.ndarray, near: float) -> np.ndarray:
    """Between neighbouring samples on both sides of the near plane, the last point in front of it, by halving."""
    crossing = (one[..., 2] >= near) != (other[..., 2] >= near)
    front, back = one[crossing], other[crossing]
    swap = front[:, 2:] < near
    front, back = np.where(swap, back, front), np.where(swap, front, back)
    for _ in range(40):
        middle = (front + back) / 2
        ahead = middle[:, 2:] >= near
        front, back = np.where(ahead, middle, front), np.where(ahead, back, middle)
    return front


def sampled_rectangle(box: np.ndarray, matrix: np.ndarray, near: float, steps: int = 120) -> np.ndarray:
    """Clipped rectangle of the surface points in front of the near plane; close to it, where a centimetre is many pixels, the sampling is
    made finer."""
    faces = faces_of(box, steps) @ matrix[:3, :3].T + matrix[:3, 3]
    flat = faces.reshape(-1, 3)
    points = np.concatenate([
        flat[flat[:, 2] >= near],
        refined(faces[:, 1:], faces[:, :-1], near),
        refined(faces[:, :, 1:], faces[:, :, :-1], near),
    ])  # fmt: skip
    pixels = points[:, :2] / points[:, 2:]
    low, high = pixels.min(0), pixels.max(0)
    return np.concatenate([np.clip(low, 0, SIZE[::-1]), np.clip(high, 0, SIZE[::-1])])


boxes_anywhere = st.tuples(
    st.floats(-3, 60), st.floats(-25, 25), st.floats(-1, 3),
    st.floats(0.3, 14), st.floats(0.3, 4), st.floats(0.3, 4), st.floats(-math.pi, math.pi),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(box=boxes_anywhere, yaw=st.floats(-math.pi, math.pi))
def test_rectangle_is_that_of_the_sampled_surface(box: tuple[float, ...], yaw: float) -> None:
    tensor = torch.tensor([box], dtype=torch.float64)
    found = project_boxes(tensor, camera(yaw=yaw), SIZE)
    assert found.rectangles.isfinite().all() and found.unclipped.isfinite().all()
    assume(bool(found.valid[0]))
    wanted = torch.from_numpy(
        sampled_rectangle(np.array(box), camera(yaw=yaw).numpy(), ProjectionRule().near)
    )
    assert rectangle_iou(found.rectangles[0], wanted) >= 0.98


@pytest.mark.parametrize(
    "box",
    [
        (1.0, 0.8, 1.3, 9.0, 2.4, 3.0, 0.2),
        (2.0, -2.5, 0.9, 12.0, 2.5, 3.2, 0.05),
        (0.7, 0.1, 1.5, 4.5, 1.9, 1.6, 1.1),
    ],
)
def test_boxes_that_straddle_the_near_plane(box: tuple[float, ...]) -> None:
    tensor = torch.tensor([box], dtype=torch.float64, requires_grad=True)
    depths = box_corners(tensor)[0, :, 0]
    assert depths.min() < 0 < depths.max(), "the box was meant to reach behind the camera"
    found = project_boxes(tensor, camera(), SIZE)
    assert found.valid.all()
    wanted = sampled_rectangle(np.array(box), camera().numpy(), ProjectionRule().near)
    assert rectangle_iou(found.rectangles[0].detach(), torch.from_numpy(wanted)) >= 0.98
    found.unclipped.sum().backward()
    assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad[0, :3].abs().sum() > 0


def test_boxes_through_and_behind_the_plane_stay_finite_in_float32() -> None:
    """Corners exactly on the plane, centres on it, whole boxes behind: no NaN in numbers or gradients."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(500, 7, generator=generator) * torch.tensor([6.0, 6, 2, 8, 3, 3, 6.3])
    boxes[:, :2] -= 3.0
    boxes[:50, 0] = boxes[:50, 3] / 2 + 0.1  # rear face on the near plane
    boxes[:50, 6] = 0.0
    boxes[50:100, 0] = 0.1
    boxes.requires_grad_()
    found = project_boxes(boxes, camera().float(), SIZE)
    assert found.rectangles.isfinite().all() and found.unclipped.isfinite().all()
    (found.rectangles.sum() + found.unclipped.sum() + found.depth.sum()).backward()
    assert boxes.grad is not None and boxes.grad.isfinite().all()
    behind = box_corners(boxes.detach())[..., 0].amax(-1) <= 0.1
    assert behind.any() and not found.valid[behind].any() and (found.unclipped[behind] == 0).all()


@pytest.mark.parametrize("x", [1.0, 12.0])
def test_gradients_are_the_derivatives(x: float) -> None:
    """By finite differences in float64, for boxes in front of the camera and through its plane."""
    boxes = torch.tensor(
        [[x, 0.37, 1.1, 4.6, 1.9, 1.7, 0.31], [x + 0.4, -1.7, 0.8, 6.5, 2.4, 2.9, 2.2]],
        dtype=torch.float64, requires_grad=True,
    )  # fmt: skip

    cameras = torch.stack([camera(), camera(yaw=0.4)])

    def project(given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = project_boxes(given.unsqueeze(0), cameras, SIZE)
        return found.rectangles, found.unclipped, found.depth

    assert project_boxes(boxes.unsqueeze(0), cameras, SIZE).valid.any(1).all()
    assert torch.autograd.gradcheck(project, (boxes,), eps=1e-7, atol=1e-4)


def test_corners_are_those_of_boxes3d() -> None:
    generator = torch.Generator().manual_seed(1)
    boxes = torch.rand(20, 7, generator=generator, dtype=torch.float64)
    zeros = torch.zeros(20)
    reference = Boxes3D(
        boxes[:, :3], boxes[:, 3:6], boxes[:, 6], torch.zeros(20, 3), zeros.long(), zeros, zeros.long()
    )
    assert torch.allclose(box_corners(boxes), reference.corners())


def test_agrees_with_the_devkit_in_front_of_the_camera() -> None:
    """nuscenes-devkit's corners and `view_points`, for boxes wholly in front."""
    pytest.importorskip("nuscenes")
    from nuscenes.utils.data_classes import Box
    from nuscenes.utils.geometry_utils import view_points
    from pyquaternion import Quaternion

    generator = np.random.default_rng(2)
    matrix = camera().numpy()
    for _ in range(50):
        center = generator.uniform([12, -8, 0], [50, 8, 2])
        length, width, height = generator.uniform([0.4, 0.4, 1], [9, 3, 3.5])
        yaw = generator.uniform(-np.pi, np.pi)
        box = Box(center, [width, length, height], Quaternion(axis=[0, 0, 1], radians=yaw))
        points = box.corners()  # [3, 8]
        pixels = view_points(matrix[:3, :3] @ points + matrix[:3, 3:], np.eye(3), normalize=True)[:2]
        wanted = np.concatenate(
            [np.clip(pixels.min(1), 0, SIZE[::-1]), np.clip(pixels.max(1), 0, SIZE[::-1])]
        )
        ours = project_boxes(
            torch.tensor([[*center, length, width, height, yaw]], dtype=torch.float64), camera(), SIZE
        )
        if ours.valid[0]:
            assert rectangle_iou(ours.rectangles[0], torch.from_numpy(wanted)) >= 0.999


def test_what_counts_in_an_image() -> None:
    size = [2.0, 2.0, 2.0, 0.3]
    boxes = torch.tensor([
        [20.0, 0, 1.5, *size],   # ahead
        [0.4, 0, 1.5, *size],    # its centre is too near
        [-20.0, 0, 1.5, *size],  # behind
        [20.0, 40.0, 1.5, *size],  # to the left of the image
        [900.0, 0, 1.5, *size],  # smaller than two pixels
    ])  # fmt: skip
    found = project_boxes(boxes, camera().float(), SIZE)
    assert found.valid.tolist() == [True, False, False, False, False]
    assert math.isclose(found.depth[0], 20.0, rel_tol=1e-6)


def test_one_box_in_two_cameras_by_broadcasting() -> None:
    boxes = torch.tensor([[[15.0, 5.0, 1.0, 4.0, 2.0, 1.6, 0.4]]], dtype=torch.float64)  # [B, M, 7]
    cameras = torch.stack([camera(), camera(yaw=0.6)]).unsqueeze(0)  # [B, V, 4, 4]
    both = project_boxes(boxes.unsqueeze(1), cameras, SIZE)
    assert both.rectangles.shape == (1, 2, 1, 4) and both.valid.all()
    for v in range(2):
        alone = project_boxes(boxes[0], cameras[0, v], SIZE)
        assert torch.equal(both.rectangles[0, v], alone.rectangles)


def test_the_labelling_rule() -> None:
    rule = VisibilityRule()
    boxes = torch.tensor([
        [30.0, 0, 1.5, 4, 2, 1.6, 0.0],
        [30.0, 20.4, 1.5, 4, 2, 1.6, 0.0],  # less than a fifth of it is inside
        [150.0, 0, 1.5, 0.5, 0.5, 1.7, 0.0],  # a pedestrian far away: fewer than 100 px² of a 1600 px wide image
    ])  # fmt: skip
    found = project_boxes(boxes, camera().float(), SIZE)
    assert found.valid.all()
    assert rule.large_enough(found, SIZE[1]).tolist() == [True, False, False]


def test_rectangle_arithmetic_by_hand() -> None:
    a, b = torch.tensor([0.0, 0, 4, 4]), torch.tensor([2.0, 2, 6, 4])
    assert rectangle_area(a) == 16 and rectangle_area(torch.tensor([3.0, 3, 2, 9])) == 0
    assert torch.allclose(rectangle_iou(a, b), torch.tensor(4 / 20))
    assert torch.allclose(generalized_iou(a, b), torch.tensor(4 / 20 - (24 - 20) / 24))
    apart = generalized_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([9.0, 9, 10, 10]))
    assert torch.allclose(apart, torch.tensor(-0.98))
    assert center_form(b).tolist() == [4, 3, 4, 2]


@given(
    x=st.floats(6, 60), y=st.floats(-20, 20), length=st.floats(0.4, 14), width=st.floats(0.4, 3), yaw=st.floats(-4, 4),
    turn=st.floats(-0.6, 0.6),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_surface_depth_is_where_the_line_of_sight_meets_the_box(
    x: float, y: float, length: float, width: float, yaw: float, turn: float
) -> None:
    """Against marching along the level line of sight in small steps."""
    matrix = camera(yaw=turn)
    box = torch.tensor([[x, y, 1.5, length, width, 2.0, yaw]], dtype=torch.float64)
    assume(math.hypot(x, y) > 0.6 * math.hypot(length, width) + 0.5)
    steps = torch.linspace(0, 1, 20001, dtype=torch.float64)[:, None] * box[:, :2]
    local = steps - box[:, :2]
    c, s = math.cos(yaw), math.sin(yaw)
    inside = (local @ torch.tensor([c, s], dtype=torch.float64)).abs() <= length / 2
    inside &= (local @ torch.tensor([-s, c], dtype=torch.float64)).abs() <= width / 2
    first = steps[inside][0]
    depth = matrix[2, :3] @ torch.tensor([*first.tolist(), 1.5], dtype=torch.float64) + matrix[2, 3]
    found = surface_depth(box, matrix)
    assert abs(float(found) - max(float(depth), 0.1)) < 0.01


def test_surface_depth_moves_with_the_box_alone() -> None:
    """A depth pulls a box nearer or pushes it away; it doesn't turn or stretch it."""
    box = torch.tensor([[20.0, 3, 1, 4.5, 1.9, 1.6, 0.7]], dtype=torch.float64, requires_grad=True)
    surface_depth(box, camera()).sum().backward()
    assert box.grad is not None
    assert torch.allclose(box.grad, torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64))
