"""Objects as points in the images: where targets lie, what they say, and that the losses can be brought to nothing."""

import math

import pytest
import torch

from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.image_centers import (
    NUMBERS,
    ImageCenterSettings,
    image_center_losses,
    image_center_targets,
)

SIZE, STRIDE = (64, 96), 8
FOCAL = 60.0


def looking(yaw: float, x: float = 0.0) -> torch.Tensor:
    """image_from_working [4, 4] of a camera at (x, 0, 1.5) that looks along `yaw`."""
    c, s = math.cos(yaw), math.sin(yaw)
    rotation = torch.tensor([[s, -c, 0.0], [0.0, 0.0, -1.0], [c, s, 0.0]])  # rows: right, down, ahead
    intrinsics = torch.tensor([[FOCAL, 0.0, 48.0], [0.0, FOCAL, 32.0], [0.0, 0.0, 1.0]])
    matrix = torch.eye(4)
    matrix[:3, :3] = intrinsics @ rotation
    matrix[:3, 3] = -matrix[:3, :3] @ torch.tensor([x, 0.0, 1.5])
    return matrix


def truth(*boxes: tuple[float, ...], labels: tuple[int, ...]) -> GroundTruth:
    return GroundTruth(torch.tensor(boxes).reshape(-1, 9), torch.tensor(labels, dtype=torch.int64))


CAR = (12.0, 1.0, 0.8, 4.5, 1.9, 1.6, 0.3, 2.0, 0.0)
BEHIND = (-12.0, 0.0, 0.8, 4.5, 1.9, 1.6, 0.0, 0.0, 0.0)
CAMERAS = torch.stack([looking(0.0), looking(math.pi)])[None]
SEEING = torch.ones(1, 2, dtype=torch.bool)


def targets(*boxes, labels, cameras=CAMERAS, mask=SEEING):
    return image_center_targets([truth(*boxes, labels=labels)], cameras, mask, SIZE, STRIDE, 3)


def test_a_centre_lies_where_it_is_seen_and_says_how_far_how_large_and_how_turned() -> None:
    found = targets(CAR, BEHIND, labels=(1, 2))
    u, v = 48 - FOCAL * 1.0 / 12.0, 32 + FOCAL * 0.7 / 12.0
    row, column = int(v / STRIDE), int(u / STRIDE)
    assert found.heatmap.shape == (1, 2, 3, 8, 12)
    assert found.heatmap[0, 0, 1, row, column] == 1 and int((found.heatmap == 1).sum()) == 2
    assert found.heatmap[0, 1, 2].amax() == 1 and found.heatmap[0, 1, 1].amax() == 0
    assert found.cell.tolist()[0] == row * 12 + column
    offset = [u / STRIDE - column, v / STRIDE - row]
    seen = 0.3 - math.atan2(1.0, 12.0)
    wanted = [*offset, math.log(12.0), *(math.log(side) for side in (4.5, 1.9, 1.6)), math.sin(seen), math.cos(seen)]
    assert found.numbers[0].tolist() == pytest.approx(wanted, abs=1e-5)


def test_the_seen_heading_doesnt_change_when_the_scene_turns_about_the_camera() -> None:
    turn = 0.4
    c, s = math.cos(turn), math.sin(turn)
    x, y, *rest = CAR
    turned = (c * x - s * y, s * x + c * y, *rest[:4], rest[4] + turn, 0.0, 0.0)
    before = targets(CAR, labels=(0,)).numbers
    after = targets(turned, labels=(0,), cameras=torch.stack([looking(turn), looking(math.pi)])[None]).numbers
    assert torch.allclose(before, after, atol=1e-5)


def test_a_scaled_scene_has_the_same_targets() -> None:
    """BEV augmentation scales boxes and matrices; what a camera sees, in its own metres, stays."""
    scale = 1.05
    scaled = CAMERAS.clone()
    scaled[..., :3, :3] /= scale
    larger = (*(scale * value for value in CAR[:6]), *CAR[6:])
    assert torch.allclose(targets(larger, labels=(1,), cameras=scaled).numbers, targets(CAR, labels=(1,)).numbers, atol=1e-5)


def test_what_no_image_holds_has_no_target() -> None:
    assert len(targets(CAR, labels=(0,), mask=torch.tensor([[False, True]])).cell) == 0
    assert len(targets((1.0, 30.0, 0.8, *CAR[3:]), labels=(0,)).cell) == 0  # beside both images
    assert len(targets(labels=()).cell) == 0


def test_losses_vanish_for_the_truth_and_reach_the_features_otherwise() -> None:
    found = targets(CAR, BEHIND, labels=(1, 2))
    heatmap = torch.where(found.heatmap == 1, 12.0, -12.0)
    numbers = torch.zeros(1, 2, NUMBERS, 8, 12)
    flat = numbers.permute(0, 1, 3, 4, 2).reshape(-1, NUMBERS).clone()
    flat[found.cell] = found.numbers
    right = flat.view(1, 2, 8, 12, NUMBERS).permute(0, 1, 4, 2, 3)
    losses = image_center_losses(heatmap, right, found)
    assert float(losses["heatmap"]) < 1e-3 and float(losses["box"]) == 0.0
    numbers.requires_grad_()
    wrong = image_center_losses(-heatmap, numbers, found)
    assert float(wrong["heatmap"].detach()) > 5
    assert float(wrong["box"].detach()) == pytest.approx(float(found.numbers.abs().mean()), rel=1e-5)
    wrong["box"].backward()
    assert int((numbers.grad != 0).sum()) > NUMBERS


def test_without_boxes_only_the_background_teaches() -> None:
    found = targets(labels=())
    losses = image_center_losses(torch.zeros(1, 2, 3, 8, 12), torch.zeros(1, 2, NUMBERS, 8, 12), found)
    assert float(losses["box"]) == 0.0 and float(losses["heatmap"]) > 0


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        ImageCenterSettings(weight=-1.0)
