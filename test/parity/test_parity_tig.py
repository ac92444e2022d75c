"""TiG-BEV's targets, keypoints, losses and gradients equal the published code's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from golden import GoldenCase, golden_case
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.lift_splat import DepthBins
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.tig_depth import (
    InnerDepthConfig,
    absolute_depth_loss,
    expected_depth,
    inner_depth_loss,
)
from dualview.supervision.tig_features import (
    InnerFeatureConfig,
    box_keypoints,
    inner_feature_losses,
    keypoint_features,
    sampling_locations,
)
from dualview.supervision.tig_targets import ObjectDepth, object_depth_of_points

GRADIENT = {"atol": 1e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return golden_case("bev", "tig_losses")


def grid_of(case: GoldenCase) -> BevGrid:
    x, y = (case.config["grid_config"][f"{axis}bound"] for axis in "xy")
    return BevGrid(x[0], y[0], x[2], round((x[1] - x[0]) / x[2]), round((y[1] - y[0]) / y[2]))


def bins_of(case: GoldenCase) -> DepthBins:
    return DepthBins(*case.config["grid_config"]["dbound"])


def truths_of(case: GoldenCase) -> list[GroundTruth]:
    """mmdetection3d 0.17's boxes (bottom centre; width, length, height; yaw clockwise from -y) as ours."""
    truths = []
    for index in range(case.config["B"]):
        box = case.inputs[f"gt_boxes_{index}"]
        center = box[:, :3] + box[:, 5:6] * box.new_tensor([0, 0, 0.5])
        size = box[:, [4, 3, 5]]
        ours = torch.cat([center, size, -box[:, 6:7] - math.pi / 2, box[:, 7:]], 1)
        truths.append(GroundTruth(ours, torch.zeros(len(box), dtype=torch.int64)))
    return truths


def object_depth_of(case: GoldenCase) -> ObjectDepth:
    config = case.config
    return object_depth_of_points(
        case.inputs["points_img"], case.inputs["points_in_box"].bool(), (config["H"], config["W"]),
        config["downsample"], bins_of(case),
    )  # fmt: skip


def features_of(case: GoldenCase, enlarge: float) -> InnerFeatureConfig:
    config = case.config
    return InnerFeatureConfig(
        config["inter_channel_weight"], config["inter_keypoint_weight"], config["x_sample_num"], enlarge,
        published_sampling=True, chunk=4,
    )  # fmt: skip


def embedding_of(case: GoldenCase) -> nn.Conv2d:
    embed = nn.Conv2d(*case.config["embed_channels"], 1)
    embed.load_state_dict({name.removeprefix("embed."): value for name, value in case.weights.items()})
    return embed


def depth_logits_of(case: GoldenCase) -> Tensor:
    logits = case.inputs["depth_logits"].unflatten(0, (case.config["B"], case.config["N"]))
    return logits.clone().requires_grad_()


def test_depth_and_object_maps(case: GoldenCase) -> None:
    target = object_depth_of(case)
    case.check("depth_map", target.depth)
    case.check("fg_map", target.object_index)


def test_depth_losses(case: GoldenCase) -> None:
    target, bins = object_depth_of(case), bins_of(case)
    logits = depth_logits_of(case)
    case.check("aux.depth_estimate", expected_depth(logits, bins, bin_centers=False).flatten(0, 1), atol=5e-5)
    losses = {
        "loss_depth": absolute_depth_loss(logits, target, bins, case.config["loss_depth_weight"]),
        "loss_inner_depth": inner_depth_loss(
            logits,
            target,
            bins,
            InnerDepthConfig(case.config["inner_depth_weight"], bin_centers=False),
        ),
    }
    for name, loss in losses.items():
        case.check(name, loss.view(1), rtol=1e-5)
        (gradient,) = torch.autograd.grad(loss, logits)
        case.check(f"grad.{name}.depth_logits", gradient.flatten(0, 1), **GRADIENT)


@pytest.mark.parametrize("prefix", ["", "no_enlarge."])
def test_keypoint_features(case: GoldenCase, prefix: str) -> None:
    config = features_of(case, 0.0 if prefix else case.config["enlarge_width"])
    grid, truths = grid_of(case), truths_of(case)
    points = torch.cat([box_keypoints(truth.boxes, config.keypoints, config.enlarge) for truth in truths])
    case.check(f"{prefix}keypoint_grid", sampling_locations(points, grid, True), atol=1e-6)
    for name in ("student", "teacher"):
        found = keypoint_features(case.inputs[f"{name}_bev"], grid, truths, config)
        case.check(f"{prefix}{name}_keypoint_feat", found, atol=5e-5)


@pytest.mark.parametrize("prefix", ["", "no_enlarge."])
def test_inner_feature_losses(case: GoldenCase, prefix: str) -> None:
    config = features_of(case, 0.0 if prefix else case.config["enlarge_width"])
    grid, embed = grid_of(case), embedding_of(case)
    student = case.inputs["student_bev"].clone().requires_grad_()
    teacher = case.inputs["teacher_bev"].clone().requires_grad_()
    losses = inner_feature_losses(student, teacher, truths_of(case), grid, grid, config, embed)
    for name, loss in losses.items():
        case.check(f"{prefix}loss_{name}", loss.view(1), rtol=1e-5)
    if prefix:
        return
    wanted = {"embed.bias": embed.bias, "embed.weight": embed.weight, "student_bev": student}
    gradients = torch.autograd.grad(losses["inter_channel"], list(wanted.values()), retain_graph=True)
    for name, gradient in zip(wanted, gradients, strict=True):
        case.check(f"grad.loss_inter_channel.{name}", gradient, **GRADIENT)
    gradient, of_teacher = torch.autograd.grad(
        losses["inter_keypoint"], [student, teacher], allow_unused=True
    )
    case.check("grad.loss_inter_keypoint.student_bev", gradient, **GRADIENT)
    assert of_teacher is None
