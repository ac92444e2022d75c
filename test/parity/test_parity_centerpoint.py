"""The LiDAR teacher's pillars, backbone and pyramid equal the published code's numbers."""

from __future__ import annotations

import pytest
import torch
from golden import GoldenCase, golden_case, golden_cases, present

from dualview.detectors.center_decoding import CenterDecodingConfig, decode_centers
from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import REGRESSIONS, TaskPrediction
from dualview.networks.pillars import PillarFeatures, VoxelGrid, scatter_to_map, voxelize
from dualview.networks.second import SecondBackbone, SecondPyramid

CASES = golden_cases("bev", "centerpoint_teacher")


@pytest.fixture(params=CASES, ids=lambda case: case.name if case else "absent")
def case(request: pytest.FixtureRequest) -> GoldenCase:
    return present(request.param, "centerpoint_teacher")


def grid_of(case: GoldenCase) -> VoxelGrid:
    low, size = case.config["point_cloud_range"][:3], case.config["voxel_size"]
    return VoxelGrid(tuple(low), tuple(size), (*case.config["grid_xy"], 1))


def load(module: torch.nn.Module, case: GoldenCase, prefix: str, renamed: dict[str, str]) -> None:
    """Weights of `prefix`, their first parts renamed."""
    weights = {}
    for name, value in case.weights.items():
        if name.startswith(prefix + "."):
            head, _, rest = name[len(prefix) + 1 :].partition(".")
            weights[f"{renamed[head]}.{rest}"] = value
    missing, unexpected = module.load_state_dict(weights, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)


def test_voxels_are_the_published_ones(case: GoldenCase) -> None:
    clouds = [case.inputs[f"points_{b}"] for b in range(case.config["B"])]
    voxels = voxelize(clouds, grid_of(case), case.config["max_num_points"], case.config["max_voxels"])
    case.check("coors_b_z_y_x", voxels.place, atol=1e-9)
    case.check("num_points_per_voxel", voxels.count, atol=1e-9)
    case.check("voxels", voxels.points, atol=1e-9)


@torch.no_grad()
def test_network(case: GoldenCase) -> None:
    config, grid = case.config, grid_of(case)
    clouds = [case.inputs[f"points_{b}"] for b in range(config["B"])]
    voxels = voxelize(clouds, grid, config["max_num_points"], config["max_voxels"])
    encoder = config["pts_voxel_encoder"]
    pillars = PillarFeatures(encoder["in_channels"], tuple(encoder["feat_channels"]), grid).eval()
    load(pillars, case, "pts_voxel_encoder", {"pfn_layers": "layers"})
    features = pillars(voxels)
    case.check("pillar_features", features, atol=2e-5)
    canvas = scatter_to_map(features, voxels.place, config["B"], grid.counts[1], grid.counts[0])
    case.check("scatter", canvas, atol=2e-5)
    settings = config["pts_backbone"]
    backbone = SecondBackbone(
        settings["in_channels"], tuple(settings["out_channels"]), tuple(settings["layer_nums"]),
        tuple(settings["layer_strides"]),
    ).eval()  # fmt: skip
    load(backbone, case, "pts_backbone", {"blocks": "stages"})
    maps = backbone(canvas)
    for index, level in enumerate(maps):
        case.check(f"second.{index}", level, atol=2e-5)
    neck = config["pts_neck"]
    pyramid = SecondPyramid(neck["in_channels"], neck["out_channels"], neck["upsample_strides"]).eval()
    load(pyramid, case, "pts_neck", {"deblocks": "levels"})
    case.check("bev", pyramid(maps), atol=2e-5)


@pytest.mark.parametrize(("which", "suppression"), [("official", "rotate"), ("circle", "circle")])
def test_parity_boxes_by_class_names(which: str, suppression: str) -> None:
    """The tables by class name give what the published lists by task give."""
    case = golden_case("bev", "centerhead")
    names, settings = case.config["class_names"], case.config["test_cfg"]
    published = ("heatmap", "reg", "height", "dim", "rot", "vel")
    tasks = [tuple(names.index(name) for name in task) for task in case.config["tasks"]]
    predictions = [
        TaskPrediction(*(case.inputs[f"pred.task{t}.{theirs}"] for theirs in published))
        for t in range(len(tasks))
    ]
    assert list(TaskPrediction.__dataclass_fields__) == ["heatmap", *REGRESSIONS]
    cell = settings["voxel_size"][0] * settings["out_size_factor"]
    rows, columns = predictions[0].heatmap.shape[-2:]
    grid = BevGrid(*settings["pc_range"], cell, columns, rows)
    config = CenterDecodingConfig(suppression, case.config["max_num"], settings["post_max_size"])  # type: ignore[arg-type]
    found = decode_centers(predictions, tasks, grid, names, config, settings["score_threshold"])
    for b, boxes in enumerate(found):
        standing = boxes.center.clone()
        standing[:, 2] -= boxes.size[:, 2] / 2
        numbers = torch.cat([standing, boxes.size, boxes.yaw[:, None], boxes.velocity[:, :2]], 1)
        case.check(f"nms_{which}.sample{b}.bboxes", numbers, atol=1e-4)
        case.check(f"nms_{which}.sample{b}.scores", boxes.score, atol=1e-6)
        case.check(f"nms_{which}.sample{b}.labels", boxes.label.int())
