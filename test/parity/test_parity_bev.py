"""Lift-splat, depth network, BEV encoder and image encoder against published code's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from golden import GoldenCase, golden_case
from torch import Tensor

from dualview.detectors.import_sparse4d import image_encoder_name
from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D
from dualview.networks.bev_encoder import BevEncoder
from dualview.networks.dense_depth import DenseDepth
from dualview.networks.depth_net import DepthNet, camera_vector
from dualview.networks.feature_pyramid import FeaturePyramid
from dualview.networks.image_backbone import ImageBackbone
from dualview.networks.lift_splat import (
    DepthBins,
    frustum,
    frustum_in_ego,
    lift_splat,
    plan_lift_splat,
    voxel_index,
)
from dualview.scene.augmentation.bev import BevAugmentation
from dualview.supervision.depth_loss import dense_depth_loss, depth_distribution_loss, depth_target


def grid_of(config: dict) -> tuple[BevGrid, int]:
    """BevGrid and number of layers in z of a case."""
    x, y, z = (config["grid_config"][axis] for axis in "xyz")
    assert x[2] == y[2], "cells must be square"
    columns, rows = round((x[1] - x[0]) / x[2]), round((y[1] - y[0]) / y[2])
    return BevGrid(x[0], y[0], x[2], columns, rows, z[0], z[1]), round((z[1] - z[0]) / z[2])


def bins_of(config: dict) -> DepthBins:
    return DepthBins(*config["grid_config"]["depth"])


def image_augmentation(inputs: dict[str, Tensor]) -> Tensor:
    """post_rots, post_trans as one affine map of homogeneous pixels, [B, N, 3, 3]."""
    affine = inputs["post_rots"].clone()
    affine[..., :2, 2] = inputs["post_trans"][..., :2]
    return affine


def projection(inputs: dict[str, Tensor]) -> Tensor:
    """image_from_ego [B, N, 4, 4] (float64) with image and BEV augmentation folded in."""
    batch, cameras = inputs["rots"].shape[:2]
    ego_from_camera = torch.eye(4, dtype=torch.float64).repeat(batch, cameras, 1, 1)
    ego_from_camera[..., :3, :3] = inputs["rots"]
    ego_from_camera[..., :3, 3] = inputs["trans"]
    augmented_from_ego = torch.eye(4, dtype=torch.float64).repeat(batch, 1, 1, 1)
    augmented_from_ego[..., :3, :3] = inputs["bda"].unsqueeze(1)
    image_from_camera = torch.eye(4, dtype=torch.float64).repeat(batch, cameras, 1, 1)
    image_from_camera[..., :3, :3] = image_augmentation(inputs).double() @ inputs["intrins"].double()
    return image_from_camera @ torch.linalg.inv(augmented_from_ego @ ego_from_camera)


def depth_net_names(config: dict, blocks: int) -> dict[str, str]:
    """Our prefix -> published prefix of BEVDepth's network."""
    names = {"reduce": "reduce_conv", "camera_norm": "bn", "context_output": "context_conv"}
    for branch in ("depth", "context"):
        gate, mlp, se = f"{branch}_gate", f"{branch}_mlp", f"{branch}_se"
        names |= {f"{gate}.embed.0": f"{mlp}.fc1", f"{gate}.embed.2": f"{mlp}.fc2"}
        names |= {f"{gate}.gate.0": f"{se}.conv_reduce", f"{gate}.gate.2": f"{se}.conv_expand"}
    names |= {f"depth_blocks.{i}": f"depth_conv.{i}" for i in range(blocks)}
    index = blocks
    if config["use_aspp"]:
        aspp = f"depth_conv.{index}"
        for i in range(4):
            names |= {f"pooled_context.branches.{i}.0": f"{aspp}.aspp{i + 1}.atrous_conv"}
            names |= {f"pooled_context.branches.{i}.1": f"{aspp}.aspp{i + 1}.bn"}
        names |= {f"pooled_context.mean.{i}": f"{aspp}.global_avg_pool.{i}" for i in (1, 2)}
        names |= {"pooled_context.mix.0": f"{aspp}.conv1", "pooled_context.mix.1": f"{aspp}.bn1"}
        index += 1
    if config["use_dcn"]:
        names |= {"deformable.offset": f"depth_conv.{index}.conv_offset", "deformable": f"depth_conv.{index}"}
        index += 1
    return names | {"depth_output": f"depth_conv.{index}"}


def load_published(module: torch.nn.Module, weights: dict[str, Tensor], names: dict[str, str]) -> None:
    """Load published weights into ours; every key of both sides must be met."""
    wanted = [key for key in module.state_dict() if not key.endswith("num_batches_tracked")]
    renamed = {}
    for key in wanted:
        prefix = max((p for p in names if key == p or key.startswith(p + ".")), key=len)
        renamed[key] = names[prefix] + key.removeprefix(prefix)
    assert sorted(renamed.values()) == sorted(k for k in weights if not k.endswith("num_batches_tracked"))
    missing, unexpected = module.load_state_dict(
        {ours: weights[theirs] for ours, theirs in renamed.items()}, strict=False
    )
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)


def without_prefix(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", ["lss_geometry"])
def test_parity_lift_splat_geometry(name: str) -> None:
    case = golden_case("bev", name)
    inputs, config = case.inputs, case.config
    grid, z_cells = grid_of(config)
    template = frustum(
        tuple(config["input_size"]), inputs["depth"].shape[-2:], bins_of(config), corner_aligned=True
    )
    case.check("frustum", template)

    points = frustum_in_ego(template, projection(inputs))
    case.check("coor", points, atol=1e-4)

    lower = torch.tensor([grid.x_min, grid.y_min, grid.z_min])
    cell = torch.tensor([grid.resolution, grid.resolution, (grid.z_max - grid.z_min) / z_cells])
    size = torch.tensor([grid.columns, grid.rows, z_cells])
    index = voxel_index(points, lower, cell, size, rounding="truncate")
    voxels = z_cells * grid.rows * grid.columns
    shift = torch.arange(index.shape[0]).view(-1, 1, 1, 1, 1) * voxels
    case.check("voxel_rank", torch.where(index >= 0, index + shift, -1))
    floored = voxel_index(points, lower, cell, size, rounding="floor")
    case.check("kept_only_by_truncation", ((index >= 0) & (floored < 0)).to(torch.uint8))

    for rounding, tensor in (("truncate", "bev"), ("floor", "alt_floor.bev")):
        plan = plan_lift_splat(projection(inputs), None, template, grid, rounding, z_cells)
        case.check(tensor, lift_splat(inputs["depth"], inputs["feat"], plan, grid, z_cells), atol=1e-5)


def test_parity_image_augmentation() -> None:
    """The published composition of resize, crop, flip and rotation is one affine map of pixels."""
    case = golden_case("bev", "lss_geometry")
    height, width = case.config["input_size"]
    affine = torch.eye(3).expand_as(case.expected["aug_post_rots"]).clone()
    for draw in case.config["image_aug"]:
        resize = torch.diag(torch.tensor([draw["resize"], draw["resize"], 1.0], dtype=torch.float64))
        crop, flip = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
        crop[:2, 2] = -torch.tensor(draw["crop"][:2], dtype=torch.float64)
        if draw["flip"]:
            flip[0, 0], flip[0, 2] = -1.0, width
        angle = math.radians(draw["rotate_deg"])
        rotation = torch.eye(3, dtype=torch.float64)
        rotation[:2, :2] = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        )
        centre = torch.tensor([width / 2, height / 2], dtype=torch.float64)
        rotation[:2, 2] = centre - rotation[:2, :2] @ centre
        affine[draw["b"], draw["cam"]] = (rotation @ flip @ crop @ resize).float()
    linear, shift = torch.eye(3).expand_as(affine).clone(), torch.zeros(*affine.shape[:2], 3)
    linear[..., :2, :2], shift[..., :2] = affine[..., :2, :2], affine[..., :2, 2]
    case.check("aug_post_rots", linear, atol=1e-4)
    case.check("aug_post_trans", shift, atol=1e-4)
    assert (image_augmentation(case.inputs) - affine).abs().max() < 1e-4


def test_parity_bev_augmentation() -> None:
    """The published turns, scales and mirrors of the world, and of boxes in it."""
    case = golden_case("bev", "lss_geometry")
    states = case.inputs["bda_boxes_in"]
    matrices, boxes = [], []
    for turn, scale, flip_x, flip_y in case.inputs["bda_params"].tolist():
        made = BevAugmentation.of(math.radians(turn), scale, bool(flip_x), bool(flip_y))
        moved = made.boxes(
            Boxes3D(
                states[:, :3], states[:, 3:6], states[:, 6], torch.nn.functional.pad(states[:, 7:9], (0, 1)),
                torch.zeros(len(states), dtype=torch.int64), torch.ones(len(states)), torch.zeros(len(states), dtype=torch.int64),
            )
        )  # fmt: skip
        matrices.append(made.matrix.float())
        boxes.append(torch.cat([moved.center, moved.size, moved.yaw[:, None], moved.velocity[:, :2]], 1))
    case.check("bda_mats", torch.stack(matrices), atol=1e-6)
    found, expected = torch.stack(boxes), case.expected["bda_boxes_out"].clone()
    expected[..., 6] = found[..., 6] + torch.remainder(expected[..., 6] - found[..., 6] + math.pi, 2 * math.pi) - math.pi
    case.check("bda_boxes_out", found, atol=1e-4, expected=expected)  # headings but for whole turns


@pytest.mark.parametrize("name", ["depthnet", "depthnet_dcn"])
def test_parity_depth_net(name: str) -> None:
    case: GoldenCase = golden_case("bev", name)
    inputs, config = case.inputs, case.config
    weights = without_prefix(case.weights, "depth_net.")
    bins, (grid, z_cells) = bins_of(config), grid_of(config)
    blocks = len(
        {key.split(".")[1] for key in weights if key.startswith("depth_conv.") and ".conv2.weight" in key}
    )
    net = DepthNet(
        config["in_channels"], len(weights["reduce_conv.0.weight"]), bins.count, config["out_channels"], blocks,
        pooled_context=config["use_aspp"], deformable=config["use_dcn"],
    ).eval()  # fmt: skip
    load_published(net, weights, depth_net_names(config, blocks))

    ego_from_camera = torch.cat([inputs["rots"], inputs["trans"].unsqueeze(-1)], -1)
    vector = camera_vector(inputs["intrins"], ego_from_camera, image_augmentation(inputs), inputs["bda"])
    case.check("mlp_input", vector)
    prediction = net(inputs["x"].flatten(0, 1), vector.flatten(0, 1))
    probability = prediction.probability()
    case.check("depth_logits", prediction.logits, atol=2e-5, rtol=1e-5)
    case.check("context", prediction.context, atol=2e-5, rtol=1e-5)
    case.check("depth_prob", probability, atol=2e-5, rtol=1e-5)

    batch_and_cameras = inputs["x"].shape[:2]
    template = frustum(tuple(config["input_size"]), inputs["x"].shape[-2:], bins, corner_aligned=True)
    plan = plan_lift_splat(projection(inputs), None, template, grid, "truncate", z_cells)
    bev = lift_splat(
        probability.unflatten(0, batch_and_cameras),
        prediction.context.unflatten(0, batch_and_cameras),
        plan,
        grid,
        z_cells,
    )
    case.check("bev", bev, atol=2e-5, rtol=1e-5)

    target = depth_target(inputs["gt_depth"].flatten(0, 1), config["downsample"], bins)
    case.check("gt_onehot_index", target.bin.int())
    case.check("num_fg", target.count.float().view(1))
    golden_probability = case.expected["depth_prob"].clone().requires_grad_()
    loss = depth_distribution_loss(golden_probability, target, config["loss_depth_weight"])
    case.check("loss_depth", loss.view(1), rtol=1e-5)
    (gradient,) = torch.autograd.grad(loss, golden_probability)
    case.check("grad_depth_prob", gradient, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("name", ["bev_encoder"])
def test_parity_bev_encoder(name: str) -> None:
    case = golden_case("bev", name)
    weights, config = case.weights, case.config
    count = len(config["num_layer"])
    channels = tuple(
        weights[f"img_bev_encoder_backbone.layers.{i}.0.conv1.weight"].shape[0] for i in range(count)
    )
    preprocess = len({k.split(".")[3] for k in weights if k.startswith("pre_process_net.layers.0.")})
    encoder = BevEncoder(
        config["C"], config["out"], channels, (2,) * count, tuple(config["num_layer"]), preprocess
    ).eval()  # fmt: skip
    names = {"pyramid.fuse": "img_bev_encoder_neck.conv"}
    names |= {f"pyramid.refine.{i}": f"img_bev_encoder_neck.up2.{i + 1}" for i in (0, 1, 3)}
    for ours, theirs, stages in (
        ("stages", "img_bev_encoder_backbone", count),
        ("preprocess", "pre_process_net", 1),
    ):
        for i in range(stages):
            names[f"{ours}.stages.{i}"] = f"{theirs}.layers.{i}"
            names[f"{ours}.stages.{i}.0.shortcut"] = f"{theirs}.layers.{i}.0.downsample"
    load_published(encoder, weights, names)

    bev = case.inputs["bev"]
    case.check("pre_process", encoder.preprocess(bev)[-1], atol=5e-5)
    stages = encoder.stages(bev)  # the case runs the two parts side by side on the same input
    for i, stage in enumerate(stages):
        case.check(f"stage{i}", stage, atol=5e-5)
    case.check("out", encoder.pyramid(stages[0], stages[-1], bev.shape[-2:]), atol=5e-5)


class ImageEncoder(torch.nn.Module):
    """The parts of a detector that case 9 looks at, under the detector's names."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        backbone, neck = config["img_backbone"], config["img_neck"]
        widths = (backbone.get("stem_channels", backbone["base_channels"]), backbone["base_channels"])
        self.image_backbone = ImageBackbone(f"resnet{backbone['depth']}", (4, 8, 16, 32), widths=widths)
        self.feature_pyramid = FeaturePyramid(self.image_backbone.channels, neck["out_channels"])
        self.dense_depth = DenseDepth(neck["out_channels"], config["depth_branch"]["num_depth_layers"])


def test_parity_image_encoder() -> None:
    case = golden_case("sparse4d", "9_image_encoder")
    encoder = ImageEncoder(case.config).eval()
    encoder.load_state_dict(
        {image_encoder_name(key): value for key, value in case.weights.items()}, strict=True
    )
    images = case.inputs["img_q"].float() / 32
    batch_and_cameras = images.shape[:2]

    def pyramid() -> list[Tensor]:
        features = encoder.image_backbone(images.flatten(0, 1))
        if not encoder.training:
            for i, feature in enumerate(features):
                case.check(f"eval.backbone.{i}", feature, atol=1e-4)
        return [level.unflatten(0, batch_and_cameras) for level in encoder.feature_pyramid(features)]

    levels = pyramid()
    for i, level in enumerate(levels):
        case.check(f"eval.fpn.{i}", level, atol=1e-4)
    for tensor, focal_length in (("depth", case.inputs["focal"]), ("depth_nofocal", None)):
        for i, depth in enumerate(encoder.dense_depth(levels, focal_length)):
            case.check(f"eval.{tensor}.{i}", depth.flatten(0, 1).unsqueeze(1), atol=1e-4, rtol=3e-5)

    encoder.train()
    levels = pyramid()
    for i, level in enumerate(levels):
        case.check(f"train.fpn.{i}", level, atol=1e-4)
    depths = encoder.dense_depth(levels, case.inputs["focal"])
    depth_maps = [case.inputs[f"gt_depth.{i}"] for i in range(len(depths))]
    loss = dense_depth_loss(depths, depth_maps, weight=case.config["depth_branch"]["loss_weight"])
    case.check("train.loss_dense_depth", loss, atol=1e-4, rtol=3e-5)
    stem = encoder.image_backbone.body.bn1
    case.check("train.bn1.running_mean_after", stem.running_mean, atol=1e-4)
    case.check("train.bn1.running_var_after", stem.running_var, atol=1e-4)
