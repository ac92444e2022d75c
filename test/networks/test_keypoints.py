import math

import torch

from dualview.networks.box_state import encode_boxes
from dualview.networks.keypoints import FIXED_KEYPOINTS, KeypointGenerator, project_keypoints


def anchor(yaw: float) -> torch.Tensor:
    return encode_boxes(torch.tensor([[10.0, 5.0, 1.0, 4.0, 2.0, 1.0, yaw, 1.0, 2.0, 0.0]])).unsqueeze(0)


def test_fixed_keypoints_lie_near_the_faces() -> None:
    points = KeypointGenerator(8)(anchor(0.0))[0, 0] - torch.tensor([10.0, 5.0, 1.0])
    expected = torch.tensor(FIXED_KEYPOINTS) * torch.tensor([4.0, 2.0, 1.0])
    torch.testing.assert_close(points, expected)


def test_keypoints_turn_with_the_box() -> None:
    points = KeypointGenerator(8)(anchor(math.pi / 2))[0, 0]
    torch.testing.assert_close(points[1], torch.tensor([10.0, 5.0 + 1.8, 1.0]))  # the front, now along +y
    torch.testing.assert_close(points[3], torch.tensor([10.0 - 0.9, 5.0, 1.0]))  # the left side, now along -x


def test_learned_keypoints_stay_inside_the_box() -> None:
    generator = KeypointGenerator(8, learned_count=6)
    with torch.no_grad():
        generator.learned_offsets.weight.mul_(100)
    points = generator(anchor(0.0), torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(0)))
    offset = (points[0, 0, 7:] - torch.tensor([10.0, 5.0, 1.0])).abs()
    assert points.shape == (1, 1, 13, 3)
    assert (offset <= torch.tensor([2.0, 1.0, 0.5]) + 1e-5).all() and offset.max() > 0.5


def test_fixed_keypoints_are_stored_but_not_parameters() -> None:
    generator = KeypointGenerator(8)
    for parameter in generator.parameters():
        torch.nn.init.constant_(parameter, 3.0)  # what overwrote them in the published training
    torch.testing.assert_close(generator.fixed_offsets, torch.tensor(FIXED_KEYPOINTS))
    assert "fixed_offsets" in generator.state_dict()
    assert not torch.equal(KeypointGenerator(8, random_fixed=True).fixed_offsets, generator.fixed_offsets)


def test_keypoints_move_with_velocity_and_frame() -> None:
    state = anchor(0.0)
    points = KeypointGenerator(8)(state)
    shift = torch.eye(4).unsqueeze(0)
    shift[0, 0, 3] = -3.0
    moved = project_keypoints(points, state, shift, torch.tensor([2.0]))
    torch.testing.assert_close(moved - points, torch.tensor([2.0 - 3.0, 4.0, 0.0]).expand_as(points))
