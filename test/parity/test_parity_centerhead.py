"""The centre head: forward, targets, losses, gradient, decoding and suppression equal the published code's
numbers.
"""

from __future__ import annotations

import pytest
import torch
from golden import GoldenCase, golden_case

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.box_suppression import suppress_by_distance, suppress_by_overlap
from dualview.networks.center_head import (
    REGRESSIONS,
    CenterBoxes,
    CenterHead,
    CenterHeadConfig,
    TaskPrediction,
    decode_task,
)
from dualview.supervision.center_targets import CenterLossConfig, center_losses, center_targets
from dualview.supervision.ground_truth import GroundTruth

NAMES = {
    "heatmap": "heatmap", "offset": "reg", "height": "height", "log_size": "dim", "heading": "rot", "velocity": "vel",
}  # fmt: skip
TERMS = {
    "heatmap": "heatmap", "offset": "xy", "height": "z", "size": "whl", "heading": "yaw", "velocity": "vel",
}  # fmt: skip


@pytest.fixture(scope="module")
def case() -> GoldenCase:
    return golden_case("bev", "centerhead")


def tasks_of(case: GoldenCase) -> tuple[tuple[int, ...], ...]:
    names = case.config["class_names"]
    return tuple(tuple(names.index(name) for name in task) for task in case.config["tasks"])


def grid_of(case: GoldenCase) -> BevGrid:
    train = case.config["train_cfg"]
    cell = train["voxel_size"][0] * train["out_size_factor"]
    cells = [size // train["out_size_factor"] for size in train["grid_size"][:2]]
    low = train["point_cloud_range"]
    return BevGrid(low[0], low[1], cell, cells[0], cells[1])


def losses_of(case: GoldenCase) -> CenterLossConfig:
    train = case.config["train_cfg"]
    return CenterLossConfig(
        min_overlap=train["gaussian_overlap"], min_radius=train["min_radius"],
        max_objects=train["max_objs"] * train["dense_reg"], dimension_weights=tuple(train["code_weights"]),
        separate_terms=case.config["task_specific"], rounding="truncate",
    )  # fmt: skip


def head_of(case: GoldenCase) -> CenterHead:
    config = CenterHeadConfig(tasks_of(case), case.config["share"], case.config["head_conv"])
    head = CenterHead(config, case.config["in_channels"]).eval()
    weights = {}
    for key in head.state_dict():
        if key.endswith("num_batches_tracked"):
            continue
        parts = key.split(".")
        if parts[0] == "shared":
            published = ["shared_conv", "conv" if parts[1] == "0" else "bn", *parts[2:]]
        else:
            inner = {"0": ["0", "conv"], "1": ["0", "bn"], "3": ["1"]}[parts[3]]
            published = ["task_heads", parts[1], NAMES[parts[2]], *inner, *parts[4:]]
        weights[key] = case.weights[".".join(published)]
    assert len(weights) == len(case.weights)
    missing, unexpected = head.load_state_dict(weights, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing)
    return head


def truths_of(case: GoldenCase) -> list[GroundTruth]:
    truths = []
    for b in range(case.config["B"]):
        boxes = case.inputs[f"gt_boxes_{b}"].clone()
        boxes[:, 2] += boxes[:, 5] / 2  # the published boxes stand on their z
        truths.append(GroundTruth(boxes, case.inputs[f"gt_labels_{b}"]))
    return truths


def test_parity_centerhead_forward_targets_losses_and_gradient(case: GoldenCase) -> None:
    features = case.inputs["feats"].clone().requires_grad_()
    predictions = head_of(case)(features)
    for t, task in enumerate(predictions):
        for ours, theirs in NAMES.items():
            case.check(f"out.task{t}.{theirs}", getattr(task, ours), atol=2e-5)

    targets = center_targets(truths_of(case), tasks_of(case), grid_of(case), losses_of(case))
    for t, target in enumerate(targets):
        count = target.valid.shape[1]
        case.check(f"target.task{t}.heatmap", target.heatmap, atol=1e-6)
        for name, ours, atol in (
            ("anno_box", target.numbers, 2e-5),
            ("ind", target.cell, 0),
            ("mask", target.valid, 0),
        ):
            golden = case.expected[f"target.task{t}.{name}"]
            case.check(f"target.task{t}.{name}", ours, atol=atol, expected=golden[:, :count])
            assert not golden[:, count:].any()  # we keep no empty places beyond the largest sample

    losses = center_losses(predictions, targets, losses_of(case))
    if case.config["task_specific"]:
        for name, value in losses.items():
            index, term = name.removeprefix("center").split("/")
            case.check(f"loss.task{index}.loss_{TERMS[term]}", value.view(1), rtol=1e-5)
    else:
        case.check("loss.loss", sum(losses.values()).view(1), rtol=1e-5)
    sum(losses.values()).backward()
    case.check("grad.feats_of_total_loss", features.grad, atol=1e-6, rtol=1e-4)


def decoded(case: GoldenCase) -> list[list[CenterBoxes]]:
    """By task, then by sample, from the synthetic head outputs."""
    config = case.config["test_cfg"]
    tasks = [
        TaskPrediction(
            **{ours: case.inputs[f"pred.task{t}.{NAMES[ours]}"] for ours in ("heatmap", *REGRESSIONS)}
        )
        for t in range(len(case.config["tasks"]))
    ]
    return [
        decode_task(
            task,
            grid_of(case),
            case.config["max_num"],
            config["score_threshold"],
            config["post_center_limit_range"],
        )
        for task in tasks
    ]


def test_parity_centerhead_decoding(case: GoldenCase) -> None:
    for t, samples in enumerate(decoded(case)):
        for b, found in enumerate(samples):
            name = f"decode.task{t}.sample{b}"
            case.check(f"{name}.bboxes", found.boxes, atol=1e-4)
            case.check(f"{name}.scores", found.scores, atol=1e-6)
            case.check(f"{name}.labels", found.labels.float())


def suppressed(case: GoldenCase, t: int, found: CenterBoxes, kind: str) -> CenterBoxes:
    config = case.config["test_cfg"]
    if kind == "circle":
        radius = config["min_radius"][t]
        return found[suppress_by_distance(found.boxes[:, :2], found.scores, radius, config["post_max_size"])]
    factor = config["nms_rescale_factor"][t]
    factors = torch.tensor(factor if isinstance(factor, list) else [factor] * len(case.config["tasks"][t]))
    found = found[found.scores >= config["score_threshold"]]
    scaled = found.boxes.clone()
    scaled[:, 3:6] *= factors[found.labels, None]
    kept = suppress_by_overlap(
        scaled, found.scores, config["nms_thr"][t], config["pre_max_size"], config["post_max_size"]
    )
    return found[kept]


@pytest.mark.parametrize("which", ["official", "circle"])
def test_parity_centerhead_suppression(case: GoldenCase, which: str) -> None:
    kinds = (
        case.config["test_cfg"]["nms_type"] if which == "official" else ["circle"] * len(case.config["tasks"])
    )
    by_task = decoded(case)
    for b in range(case.config["B"]):
        parts = [suppressed(case, t, samples[b], kinds[t]) for t, samples in enumerate(by_task)]
        first = 0
        labels = []
        for task, part in zip(case.config["tasks"], parts, strict=True):
            labels.append(part.labels + first)
            first += len(task)
        boxes = torch.cat([part.boxes for part in parts])
        boxes[:, 2] -= boxes[:, 5] / 2
        case.check(f"nms_{which}.sample{b}.bboxes", boxes, atol=1e-4)
        case.check(f"nms_{which}.sample{b}.scores", torch.cat([part.scores for part in parts]), atol=1e-6)
        case.check(f"nms_{which}.sample{b}.labels", torch.cat(labels).int())
