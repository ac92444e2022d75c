import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.networks.box_state import (
    CENTER,
    COS_YAW,
    SIN_YAW,
    VELOCITY,
    decode_boxes,
    encode_boxes,
    project_anchors,
    spiral_anchors,
)


def planar(x: float, y: float, yaw: float) -> torch.Tensor:
    transform = torch.eye(4, dtype=torch.float64)
    rotation = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    transform[:2, :2] = torch.tensor(rotation, dtype=torch.float64)
    transform[:2, 3] = torch.tensor([x, y], dtype=torch.float64)
    return transform


def boxes(count: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, 10, generator=generator, dtype=torch.float64)
    values[:, :3] *= 20
    values[:, 3:6] = values[:, 3:6].abs() + 0.5
    return values


def test_encoding_and_decoding_are_inverse() -> None:
    original = boxes()
    again = decode_boxes(encode_boxes(original))
    turns = ((again[:, 6] - original[:, 6]) / (2 * math.pi)).round()
    again[:, 6] -= turns * 2 * math.pi
    torch.testing.assert_close(again, original, atol=1e-12, rtol=0)


@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-3, 3), st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_static_object_stays_in_the_world_while_the_vehicle_moves(x, y, yaw, gap) -> None:
    """What the first vehicle pose sees, projected, is what the second pose sees (spec: below 1e-3 m)."""
    world_from_first, world_from_second = planar(0, 0, 0.3), planar(x, y, yaw)
    truth = boxes()
    truth[:, 7:] = 0
    second_from_first = torch.linalg.inv(world_from_second) @ world_from_first
    anchors = encode_boxes(truth).unsqueeze(0)
    moved = project_anchors(anchors, second_from_first.unsqueeze(0), torch.tensor([gap]))[0]
    expected = truth[:, :3] @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    torch.testing.assert_close(moved[:, CENTER], expected, atol=1e-9, rtol=0)
    heading = torch.atan2(moved[:, SIN_YAW], moved[:, COS_YAW])
    wanted = truth[:, 6] + 0.3 - yaw
    torch.testing.assert_close(heading.cos(), wanted.cos(), atol=1e-9, rtol=0)
    torch.testing.assert_close(heading.sin(), wanted.sin(), atol=1e-9, rtol=0)


def test_quarter_turn_of_the_vehicle_turns_heading_and_velocity_back() -> None:
    anchor = torch.zeros(1, 1, 11)
    anchor[..., COS_YAW] = 1.0  # looks along +x
    anchor[..., VELOCITY] = torch.tensor([3.0, 0.0, 0.5])
    target_from_source = torch.linalg.inv(planar(0, 0, math.pi / 2)).float().unsqueeze(0)
    moved = project_anchors(anchor, target_from_source, torch.tensor([2.0]))[0, 0]
    torch.testing.assert_close(moved[[SIN_YAW, COS_YAW]], torch.tensor([-1.0, 0.0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[VELOCITY], torch.tensor([0.0, -3.0, 0.5]), atol=1e-6, rtol=0)
    torch.testing.assert_close(moved[CENTER], torch.tensor([0.0, -6.0, 1.0]), atol=1e-6, rtol=0)
    swapped = project_anchors(anchor, target_from_source, torch.tensor([2.0]), swapped_yaw=True)[0, 0]
    torch.testing.assert_close(swapped[[COS_YAW, SIN_YAW]], moved[[SIN_YAW, COS_YAW]])


def test_two_velocity_components_cannot_be_moved_in_time() -> None:
    with pytest.raises(ValueError, match="velocity components"):
        project_anchors(torch.zeros(1, 2, 10), torch.eye(4).unsqueeze(0), torch.ones(1))


def test_starting_anchors_are_even_and_repeatable() -> None:
    anchors = spiral_anchors(900, 50.0)
    assert torch.equal(anchors, spiral_anchors(900, 50.0))
    distance = anchors[:, :2].norm(dim=1)
    assert distance.max() < 50.0
    assert ((distance < 25).sum() - 225).abs() < 5  # a quarter of the disc's area, a quarter of the anchors
    nearest = torch.cdist(anchors[:, :2], anchors[:, :2]).fill_diagonal_(1e9).amin(1)
    assert nearest.min() > 1.0
