"""Boxes: corners, containment and change of frame."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry import Boxes3D
from dualview.geometry.boxes import concatenate_boxes


def make_boxes(center, size, yaw, velocity=(0.0, 0.0, 0.0)) -> Boxes3D:
    return Boxes3D(
        center=torch.tensor([center], dtype=torch.float64), size=torch.tensor([size], dtype=torch.float64),
        yaw=torch.tensor([yaw], dtype=torch.float64), velocity=torch.tensor([velocity], dtype=torch.float64),
        label=torch.zeros(1, dtype=torch.int64), score=torch.ones(1), track_id=torch.tensor([7]),
    )  # fmt: skip


def transform(yaw: float, x: float, y: float, z: float) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 0] = matrix[1, 1] = math.cos(yaw)
    matrix[1, 0], matrix[0, 1] = math.sin(yaw), -math.sin(yaw)
    matrix[:3, 3] = torch.tensor([x, y, z])
    return matrix


angles, meters = st.floats(-3.1, 3.1), st.floats(-80, 80)


def test_corners_of_a_car_heading_left() -> None:
    corners = make_boxes((10, 0, 1), (4, 2, 1.5), math.pi / 2).corners()[0]
    assert corners.min(0).values.tolist() == pytest.approx([9, -2, 0.25])
    assert corners.max(0).values.tolist() == pytest.approx([11, 2, 1.75])
    assert corners[1].tolist() == pytest.approx([11, 2, 0.25])  # bit 0 = front: +length; right side is +x when heading left


@given(angles, meters, meters, angles)
@settings(max_examples=50, deadline=None)
def test_corners_move_with_their_box(box_yaw: float, x: float, y: float, frame_yaw: float) -> None:
    boxes = make_boxes((x, y, 0.5), (4.5, 1.9, 1.6), box_yaw, (3.0, 1.0, 0.0))
    move = transform(frame_yaw, 5, -3, 1)
    moved = boxes.transformed(move)
    expected = boxes.corners() @ move[:3, :3].T + move[:3, 3]
    assert torch.allclose(moved.corners(), expected, atol=1e-9)
    assert moved.velocity.norm().item() == pytest.approx(math.hypot(3, 1))
    assert moved.track_id.tolist() == [7]


@given(angles, meters, meters)
@settings(max_examples=50, deadline=None)
def test_a_box_contains_its_own_points_and_no_others(yaw: float, x: float, y: float) -> None:
    boxes = make_boxes((x, y, 0), (4, 2, 1.5), yaw)
    inside = boxes.center + 0.99 * (boxes.corners()[0] - boxes.center)
    outside = boxes.center + 1.01 * (boxes.corners()[0] - boxes.center)
    assert boxes.contains(inside).all()
    assert not boxes.contains(outside).any()


def test_world_coordinates_keep_centimetres_through_float32_boxes() -> None:
    far = transform(0.3, 100_000.0, 50_000.0, 0.0)
    boxes = make_boxes((12.34, -5.67, 0.89), (4, 2, 1.5), 0.1)
    back = boxes.transformed(far).transformed(torch.linalg.inv(far))
    assert torch.allclose(back.center, boxes.center, atol=1e-6)


def test_shapes_are_checked() -> None:
    boxes = make_boxes((0, 0, 0), (1, 1, 1), 0)
    with pytest.raises(ValueError, match="yaw must be"):
        Boxes3D(boxes.center, boxes.size, torch.zeros(2), boxes.velocity, boxes.label, boxes.score, boxes.track_id)
    assert len(concatenate_boxes([boxes, boxes])) == 2
    assert len(concatenate_boxes([])) == 0
