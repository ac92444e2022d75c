"""BEVFormer-tiny: encoder layer with and without a previous map, ego motion, head and decoding equal the
published code's numbers."""

from __future__ import annotations

import math

import pytest
import torch
from golden import GoldenCase, golden_case
from torch import Tensor

from dualview.detectors.import_bevformer import network_weights
from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.rigid import yaw_of
from dualview.networks.bevformer_camera_attention import bevformer_pillars, view_pillars
from dualview.networks.bevformer_config import BevFormerConfig, BevFormerQuirks
from dualview.networks.bevformer_decoder import BevFormerDecoder
from dualview.networks.bevformer_encoder import BevFormerEncoder
from dualview.networks.bevformer_memory import (
    BevMemory,
    RememberedMap,
    motion_vector,
    previous_from_current,
    recall_bev,
)

ATTENTION = 1e-4  # the case's tolerance of attention outputs and of boxes
LIDAR_FROM_EGO = torch.tensor(
    [[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64
)  # x right, y forward


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return golden_case("bev", "bevformer_tiny")


@pytest.fixture(scope="module")
def config(case: GoldenCase) -> BevFormerConfig:
    c = case.config
    low, high = c["pc_range"][:3], c["pc_range"][3:]
    columns, rows = c["bev"]
    grid = BevGrid(low[0], low[1], (high[0] - low[0]) / columns, columns, rows, low[2], high[2])
    quirks = BevFormerQuirks(tuple(map(float, c["rotate_center"])), nearest_rotation=True, world_motion=True)
    return BevFormerConfig(
        class_count=c["num_classes"], embed_dims=c["embed"], grid=grid, heads=c["num_heads"], encoder_layers=1,
        decoder_layers=c["num_dec_layers"], feedforward_dims=c["ffn"], num_levels=len(c["levels"]),
        heights=c["num_points_in_pillar"], camera_points=c["num_points"], num_queries=c["num_query"],
        quirks=quirks,
    )  # fmt: skip


def load(module: torch.nn.Module, case: GoldenCase, prefix: str) -> None:
    """The case's weights, by the importer's names; the case brings its own position encoding and no decoder."""
    weights = network_weights(
        {("pts_bbox_head." + k).replace("bbox_head.head.", "bbox_head."): v for k, v in case.weights.items()}
    )
    wanted = module.state_dict()
    own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    missing, unexpected = module.load_state_dict(own, strict=False)
    assert not unexpected and len(own) + len(missing) == len(wanted)
    apart = ("position.", "layers.", "reference.")
    given_elsewhere = all(name.startswith(apart) for name in missing)
    assert given_elsewhere and (prefix != "encoder." or len(missing) == 2)


@pytest.fixture(scope="module")
def encoder(case: GoldenCase, config: BevFormerConfig) -> BevFormerEncoder:
    module = BevFormerEncoder(config).eval()
    load(module, case, "encoder.")
    return module


@pytest.fixture(scope="module")
def decoder(case: GoldenCase, config: BevFormerConfig) -> BevFormerDecoder:
    module = BevFormerDecoder(config).eval()
    load(module, case, "decoder.")
    return module


def memory_and_pose(case: GoldenCase, config: BevFormerConfig) -> tuple[BevMemory, Tensor]:
    """A drive that has the case's can-bus numbers: displacement in the world, heading, change of heading."""
    can_bus = case.inputs["can_bus"].double()
    heading, change = can_bus[:, -2], torch.deg2rad(can_bus[:, -1])

    def pose(yaw: Tensor, place: Tensor) -> Tensor:
        world_from_ego = torch.eye(4, dtype=torch.float64).repeat(len(yaw), 1, 1)
        world_from_ego[:, 0, 0] = world_from_ego[:, 1, 1] = yaw.cos()
        world_from_ego[:, 1, 0], world_from_ego[:, 0, 1] = yaw.sin(), -yaw.sin()
        world_from_ego[:, :2, 3] = place
        return world_from_ego @ torch.linalg.inv(LIDAR_FROM_EGO)

    current = pose(heading, can_bus[:, :2])
    before = pose(heading - change, torch.zeros(1, 2, dtype=torch.float64))
    grid = config.grid
    features = case.inputs["prev_bev"].transpose(1, 2).unflatten(2, (grid.rows, grid.columns))
    return BevMemory(RememberedMap(features, torch.zeros(1, dtype=torch.float64), before)), current


def test_parity_previous_map(case: GoldenCase, config: BevFormerConfig) -> None:
    memory, pose = memory_and_pose(case, config)
    stamps = torch.full((1,), 0.5, dtype=torch.float64)
    previous = recall_bev(memory, stamps, pose, config.grid, 2.0, config.quirks)
    assert previous is not None and previous.valid.all()
    case.check("shift_xy", previous.shift, atol=1e-6)
    case.check("prev_bev_rotated", previous.tokens.transpose(0, 1))
    # the numbers of the can bus that poses can tell
    vector = motion_vector(memory, stamps, pose, LIDAR_FROM_EGO, 2.0, config.quirks)
    given = case.inputs["can_bus"]
    case.check("can_bus dx dy", vector[:, :2], atol=1e-5, expected=given[:, :2])
    case.check("can_bus yaw change", vector[:, -1], atol=1e-4, expected=given[:, -1])
    turned = (vector[:, -2] - given[:, -2]).double()
    assert turned.sin().abs().max() < 1e-5 and turned.cos().min() > 0
    assert torch.allclose(
        yaw_of(previous_from_current(memory, pose)), torch.deg2rad(given[:, -1]).double(), atol=1e-6
    )


def test_parity_reference_points(
    case: GoldenCase, config: BevFormerConfig, encoder: BevFormerEncoder
) -> None:
    case.check("ref_2d", encoder.cells[:, 0].unsqueeze(2), atol=1e-6)
    grid = config.grid
    points = bevformer_pillars(grid, config.heights)
    low = points.new_tensor([grid.x_min, grid.y_min, grid.z_min])
    extent = points.new_tensor([grid.x_max, grid.y_max, grid.z_max]) - low
    case.check("ref_3d", ((points - low) / extent).transpose(0, 1).unsqueeze(0), atol=1e-6)
    views = view_pillars(
        points, case.inputs["lidar2img"], torch.ones(1, 6, dtype=torch.bool), tuple(case.config["img_hw"])
    )
    visible = views.visible.transpose(0, 1)
    case.check("bev_mask", visible.to(torch.uint8))
    locations = views.locations.transpose(0, 1) * visible.unsqueeze(-1)
    case.check("reference_points_cam_valid", locations, atol=1e-5)


@pytest.mark.parametrize("history", ["no_prev", "with_prev"])
def test_parity_encoder(
    case: GoldenCase, config: BevFormerConfig, encoder: BevFormerEncoder, history: str
) -> None:
    inputs, seen = case.inputs, {}
    views = view_pillars(
        encoder.pillars, inputs["lidar2img"], torch.ones(1, 6, dtype=torch.bool), tuple(case.config["img_hw"])
    )
    layer = encoder.layers[0]
    hooks = [
        layer.temporal_attention.register_forward_hook(lambda *x: seen.update(tsa_out=x[2])),
        layer.camera_attention.register_forward_hook(lambda *x: seen.update(sca_out=x[2])),
    ]
    previous = None
    if history == "with_prev":
        memory, pose = memory_and_pose(case, config)
        stamps = torch.full((1,), 0.5, dtype=torch.float64)
        previous = recall_bev(memory, stamps, pose, config.grid, 2.0, config.quirks)
    with torch.no_grad():
        # the case gives its own queries beside the weights
        query = inputs["bev_queries"] + encoder.motion(inputs["can_bus"]).unsqueeze(1)
        case.check("bev_query_after_can_bus", query.transpose(0, 1), atol=1e-5)
        position = inputs["bev_pos"].flatten(2).transpose(1, 2)
        features = encoder.embedded([inputs["feat_lvl0"]])
        seen["bev_embed"] = encoder.run_layers(query, position, features, views, previous)
    for hook in hooks:
        hook.remove()
    for name, value in seen.items():
        case.check(f"{history}.{name}", value, atol=ATTENTION)


def published_order(anchors: Tensor) -> Tensor:
    """Our box states -> cx, cy, log w, log l, cz, log h, sin, cos, vx, vy with the published heading -yaw - 90
    degrees.
    """
    x, y, z, length, width, height, sin, cos, vx, vy = anchors[..., :10].unbind(-1)
    return torch.stack([x, y, width, length, z, height, -cos, -sin, vx, vy], -1)


def test_parity_head_and_decoding(case: GoldenCase, decoder: BevFormerDecoder) -> None:
    from dualview.detectors.bevformer_decoding import decode_queries

    states = case.inputs["dec.hs"].transpose(1, 2)  # [layers, B, N, C]
    references = [case.inputs["dec.init_reference"], *case.inputs["dec.inter_references"]]
    layers = []
    with torch.no_grad():
        for index, features in enumerate(states):
            refined, _ = decoder.read(index, features, references[index])
            layers.append(refined)
    case.check("all_cls_scores", torch.stack([r.class_logits for r in layers]), atol=ATTENTION)
    boxes = torch.stack([published_order(r.anchors) for r in layers])
    case.check("all_bbox_preds", boxes, atol=ATTENTION)

    low, high = case.config["post_center_range"][:3], case.config["post_center_range"][3:]
    assert low == [-v for v in high]
    decoded = decode_queries(
        layers[-1].class_logits, layers[-1].anchors, case.config["max_num"], center_range=tuple(high)
    )
    for sample, found in enumerate(decoded):
        name = f"decode.sample{sample}"
        assert found.labels.tolist() == case.expected[f"{name}.labels"].tolist()
        case.check(f"{name}.scores", found.scores, atol=ATTENTION)
        golden = case.expected[f"{name}.bboxes"]
        x, y, z, length, width, height, yaw, vx, vy, _ = found.boxes.unbind(-1)
        turned = -yaw - math.pi / 2
        turned = turned + (2 * math.pi) * ((golden[:, 6] - turned) / (2 * math.pi)).round()
        theirs = torch.stack([x, y, z - height / 2, width, length, height, turned, vx, vy], -1)
        case.check(f"{name}.bboxes", theirs, atol=ATTENTION)
