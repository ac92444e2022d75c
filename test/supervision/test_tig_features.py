"""TiG-BEV's inner-feature distillation against loops, and with few, no, or far boxes."""

import math

import pytest
import torch
from torch import nn

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.tig_features import (
    InnerFeatureConfig,
    box_keypoints,
    inner_feature_losses,
    inter_keypoint_loss,
    keypoint_features,
)

GRID = BevGrid(-8.0, -6.0, 1.0, 16, 12)
CONFIG = InnerFeatureConfig(keypoints=3, enlarge=0.5, chunk=2)


def truth(*boxes):
    rows = [[x, y, 0.0, length, width, 1.5, yaw, 0.0, 0.0] for x, y, length, width, yaw in boxes]
    return GroundTruth(torch.tensor(rows).view(-1, 9), torch.zeros(len(rows), dtype=torch.int64))


TRUTHS = [truth((1.0, 2.0, 4.0, 2.0, 0.4), (-3.0, -2.5, 1.0, 1.0, 2.0), (0.2, 0.1, 3.0, 1.0, -1.0)), truth()]


def maps(seed=0, dtype=torch.float64, student=4, teacher=5):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(2, student, 12, 16, generator=generator, dtype=dtype).requires_grad_(),
        torch.randn(2, teacher, 12, 16, generator=generator, dtype=dtype).requires_grad_(),
    )


def loop_gram_loss(ours, theirs, gram):
    """ours, theirs [M, R, *]: one pair of rows after another."""
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        first = [[(a[i] * a[j]).sum() for j in range(len(a))] for i in range(len(a))]
        second = [[(b[i] * b[j]).sum() for j in range(len(b))] for i in range(len(b))]
        squares = 0.0
        for row, other in zip(first, second, strict=True):
            scale = [sum(v**2 for v in r) ** 0.5 if gram == "row_normalized" else 1.0 for r in (row, other)]
            squares = squares + sum(
                (u / scale[0] - v / scale[1]) ** 2 for u, v in zip(row, other, strict=True)
            )
        total = total + (squares if gram == "row_normalized" else squares**0.5)
    return total / (len(ours) * ours.shape[1]) if gram == "row_normalized" else total


@pytest.mark.parametrize("gram", ["row_normalized", "plain"])
def test_losses_equal_loops(gram):
    student, teacher = maps()
    config = InnerFeatureConfig(2.0, 3.0, 3, 0.5, gram, chunk=2)
    embed = nn.Conv2d(4, 5, 1).double()
    losses = inner_feature_losses(student, teacher, TRUTHS, GRID, GRID, config, embed)
    ours = keypoint_features(student, GRID, TRUTHS, config)
    theirs = keypoint_features(teacher, GRID, TRUTHS, config).detach()
    assert ours.shape == (3, 4, 3, 3)
    slow = {
        "inter_channel": 2 * loop_gram_loss(embed(ours).flatten(2), theirs.flatten(2), gram),
        "inter_keypoint": 3 * loop_gram_loss(ours.flatten(2).mT, theirs.flatten(2).mT, gram),
    }
    assert losses.keys() == slow.keys()
    for name, loss in losses.items():
        assert torch.isclose(loss, slow[name], rtol=1e-9)
        fast, taught = torch.autograd.grad(loss, [student, teacher], allow_unused=True, retain_graph=True)
        assert torch.allclose(fast, torch.autograd.grad(slow[name], student, retain_graph=True)[0])
        assert taught is None


def test_keypoints_are_the_corners_and_between():
    points = box_keypoints(truth((1.0, 2.0, 4.0, 2.0, math.pi / 2)).boxes, 3, 0.5)[0]
    assert torch.allclose(points[0, 0], torch.tensor([2.5, 4.5]), atol=1e-6)  # front right: length 5, width 3
    assert torch.allclose(points[1, 1], torch.tensor([1.0, 2.0]), atol=1e-6)
    assert torch.allclose(points[2, 2], torch.tensor([-0.5, -0.5]), atol=1e-6)  # back left


def test_a_feature_is_read_where_it_lies():
    ramp = GRID.cell_centers().permute(2, 0, 1)[None]  # x and y of each cell
    boxes = truth((1.3, -2.2, 3.0, 1.0, 0.7))
    found = keypoint_features(ramp, GRID, [boxes], CONFIG)
    expected = box_keypoints(boxes.boxes, 3, 0.5).permute(0, 3, 1, 2)
    assert torch.allclose(found, expected, atol=1e-5)
    drifted = keypoint_features(
        ramp, GRID, [boxes], InnerFeatureConfig(keypoints=3, enlarge=0.5, published_sampling=True)
    )
    assert 0.1 < (drifted - expected).abs().max() < 1.0  # the published drift, less than a cell


def test_maps_on_different_grids_meet_in_metres():
    student = GRID.cell_centers().permute(2, 0, 1)[None]
    fine = BevGrid(-8.0, -6.0, 0.5, 32, 24)
    teacher = fine.cell_centers().permute(2, 0, 1)[None]
    losses = inner_feature_losses(student, teacher, TRUTHS[:1], GRID, fine, CONFIG)
    assert all(abs(loss.item()) < 1e-6 for loss in losses.values())


def test_gradients_in_float64():
    student, teacher = maps(1)
    embed = nn.Conv2d(4, 5, 1).double()

    def total(bev, weight):
        embedded = lambda x: nn.functional.conv2d(x, weight, embed.bias)  # noqa: E731
        return sum(inner_feature_losses(bev, teacher, TRUTHS, GRID, GRID, CONFIG, embedded).values())

    assert torch.autograd.gradcheck(
        total, (student, embed.weight.detach().clone().requires_grad_()), fast_mode=True
    )


@pytest.mark.parametrize(
    "truths",
    [
        [truth(), truth()],
        [truth((40.0, 0.0, 4.0, 2.0, 0.0)), truth((0.0, -6.01, 4.0, 2.0, 0.0))],  # outside the grid
        [truth((0.0, 0.0, 0.0, 2.0, 0.0)), truth((math.nan, 0.0, 4.0, 2.0, 0.0))],  # no size, no place
    ],
)
def test_nothing_to_teach_is_zero_with_gradient(truths):
    student, teacher = maps()
    embed = nn.Conv2d(4, 5, 1).double()
    losses = inner_feature_losses(student, teacher, truths, GRID, GRID, CONFIG, embed)
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0.0 and student.grad.eq(0).all() and embed.weight.grad.eq(0).all()


def test_boxes_outside_change_nothing():
    student, teacher = maps()
    more = [truth((1.0, 2.0, 4.0, 2.0, 0.4), (60.0, 2.0, 4.0, 2.0, 0.4)), truth()]
    less = [truth((1.0, 2.0, 4.0, 2.0, 0.4)), truth()]
    config = InnerFeatureConfig(0.0, 1.0, 3, 0.5)
    found = [inner_feature_losses(student, teacher, t, GRID, GRID, config) for t in (more, less)]
    assert list(found[0]) == ["inter_keypoint"]
    assert torch.equal(found[0]["inter_keypoint"], found[1]["inter_keypoint"])


def test_chunks_change_nothing():
    student, teacher = maps()
    losses = [
        inner_feature_losses(
            student, teacher, TRUTHS, GRID, GRID, InnerFeatureConfig(0, 1, 3, 0.5, chunk=chunk)
        )
        for chunk in (1, 2, 100)
    ]
    assert torch.isclose(losses[0]["inter_keypoint"], losses[1]["inter_keypoint"])
    assert torch.isclose(losses[0]["inter_keypoint"], losses[2]["inter_keypoint"])


def test_a_dead_feature_has_a_finite_gradient():
    student = torch.zeros(1, 4, 3, 3, requires_grad=True)
    loss = inter_keypoint_loss(student, torch.randn(1, 5, 3, 3), CONFIG)
    loss.backward()
    assert student.grad.isfinite().all() and math.isclose(
        loss.item(), 100.0, rel_tol=1e-5
    )  # rows of length 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    student, teacher = (
        100 * m.detach() for m in maps(dtype=torch.float32, teacher=4)
    )  # squares overflow fp16
    half = student.to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        losses = inner_feature_losses(half, teacher.to(dtype), TRUTHS, GRID, GRID, CONFIG)
    exact = inner_feature_losses(half.detach().float(), teacher.to(dtype).float(), TRUTHS, GRID, GRID, CONFIG)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32 and torch.isclose(loss, exact[name])
    sum(losses.values()).backward()
    assert half.grad.isfinite().all() and half.grad.ne(0).any()


def test_channels_that_differ_need_an_embedding():
    student, teacher = maps()
    with pytest.raises(ValueError, match="embedding"):
        inner_feature_losses(student, teacher, TRUTHS, GRID, GRID, CONFIG)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="keypoints"):
        InnerFeatureConfig(keypoints=1)
    with pytest.raises(ValueError, match="inner_feature: null"):
        InnerFeatureConfig(channel_weight=0.0, keypoint_weight=0.0)
