"""Targets and losses of the centre head (CenterPoint, arXiv 2006.11275, section 4; Gaussian radius of
CornerNet, arXiv 1808.01244).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import TaskPrediction
from dualview.networks.lift_splat import Rounding
from dualview.supervision.detection_loss import average_count, gaussian_focal_loss
from dualview.supervision.ground_truth import GroundTruth

_FLOAT_EPSILON = torch.finfo(torch.float32).eps
_TERMS = {"offset": (0, 2), "height": (2, 3), "size": (3, 6), "heading": (6, 8), "velocity": (8, 10)}


@dataclass(frozen=True)
class CenterLossConfig:
    """min_overlap: a centre moved by the Gaussian's radius still overlaps so much; min_radius in cells.
    max_objects: of a task and sample. dimension_weights: of the ten numbers. separate_terms: box losses by
    kind, as published for single tasks. rounding "truncate" gives the published cell of centres just below
    the grid (cell 0).
    """

    heatmap_weight: float = 1.0
    box_weight: float = 0.25
    min_overlap: float = 0.1
    min_radius: int = 2
    max_objects: int = 500
    dimension_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)
    separate_terms: bool = True
    rounding: Rounding = "floor"


@dataclass(frozen=True)
class TaskTargets:
    """heatmap [B, classes, Y, X] in 0..1; numbers [B, K, 10] as `TaskPrediction.regression`; cell int64 [B,
    K] (y * X + x); valid bool [B, K].
    """

    heatmap: Tensor
    numbers: Tensor
    cell: Tensor
    valid: Tensor


def gaussian_radius(length: float, width: float, min_overlap: float) -> float:
    """CornerNet's radius for a rectangle of length x width cells, with the factor that its code left out and
    all users kept out.
    """
    total, area, overlap = length + width, length * width, min_overlap
    first = (total + math.sqrt(total**2 - 4 * area * (1 - overlap) / (1 + overlap))) / 2
    second = (2 * total + math.sqrt(4 * total**2 - 16 * (1 - overlap) * area)) / 2
    third = (
        -2 * overlap * total + math.sqrt((2 * overlap * total) ** 2 - 16 * overlap * (overlap - 1) * area)
    ) / 2
    return min(first, second, third)


def center_targets(
    truths: Sequence[GroundTruth], tasks: Sequence[Sequence[int]], grid: BevGrid, config: CenterLossConfig
) -> list[TaskTargets]:
    """Targets of every task for a batch. Boxes outside the grid, or without volume, are left out; unknown velocities stay NaN and
    get no loss.
    """
    return [_task_targets(truths, task, grid, config) for task in tasks]


def _task_targets(
    truths: Sequence[GroundTruth], task: Sequence[int], grid: BevGrid, config: CenterLossConfig
) -> TaskTargets:
    device = truths[0].boxes.device
    most = min(max((int(torch.isin(t.labels, t.labels.new_tensor(list(task))).sum()) for t in truths), default=0),
               config.max_objects)  # fmt: skip
    heatmap = torch.zeros(len(truths), len(task), grid.rows, grid.columns)
    numbers = torch.zeros(len(truths), most, 10)
    cell = torch.zeros(len(truths), most, dtype=torch.int64)
    valid = torch.zeros(len(truths), most, dtype=torch.bool)
    for b, truth in enumerate(truths):
        labels = truth.labels.cpu()
        order = torch.cat([(labels == label).nonzero()[:, 0] for label in task])[: config.max_objects]
        boxes = truth.boxes.cpu()[order]
        place = (boxes[:, :2] - boxes.new_tensor([grid.x_min, grid.y_min])) / grid.resolution
        corner = place.trunc() if config.rounding == "truncate" else place.floor()
        inside = ((corner >= 0) & (corner < corner.new_tensor([grid.columns, grid.rows]))).all(1)
        inside &= (boxes[:, 3:6] > 0).all(1)  # a flat box has no logarithm
        for slot in inside.nonzero()[:, 0].tolist():
            column, row = (int(v) for v in corner[slot])
            length, width = (float(v) / grid.resolution for v in boxes[slot, 3:5])
            radius = max(config.min_radius, int(gaussian_radius(length, width, config.min_overlap)))
            splat(heatmap[b, task.index(int(labels[order[slot]]))], column, row, radius)
            cell[b, slot], valid[b, slot] = row * grid.columns + column, True
            yaw = boxes[slot, 6]
            numbers[b, slot] = torch.cat(
                [place[slot] - corner[slot], boxes[slot, 2:3], boxes[slot, 3:6].log(),
                 torch.stack([yaw.sin(), yaw.cos()]), boxes[slot, 7:9]]
            )  # fmt: skip
    return TaskTargets(heatmap.to(device), numbers.to(device), cell.to(device), valid.to(device))


def splat(heatmap: Tensor, column: int, row: int, radius: int) -> None:
    """Lay a Gaussian of deviation (2 radius + 1) / 6 over heatmap [Y, X], in place; the higher value stays."""
    deviation = (2 * radius + 1) / 6
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    bell = torch.exp(-(offsets[:, None] ** 2 + offsets[None, :] ** 2) / (2 * deviation**2)).float()
    rows, columns = heatmap.shape
    top, bottom = max(row - radius, 0), min(row + radius + 1, rows)
    left, right = max(column - radius, 0), min(column + radius + 1, columns)
    part = bell[top - row + radius : bottom - row + radius, left - column + radius : right - column + radius]
    heatmap[top:bottom, left:right] = torch.maximum(heatmap[top:bottom, left:right], part)


def center_losses(
    predictions: Sequence[TaskPrediction], targets: Sequence[TaskTargets], config: CenterLossConfig
) -> dict[str, Tensor]:
    """Loss terms "center{task}/heatmap|offset|height|size|heading|velocity" (or "box" for the five together),
    weighted, to be summed.
    """
    losses: dict[str, Tensor] = {}
    for index, (task, target) in enumerate(zip(predictions, targets, strict=True)):
        probability = task.heatmap.sigmoid().clamp(1e-4, 1 - 1e-4)
        peaks = average_count((target.heatmap == 1).sum()) + _FLOAT_EPSILON
        losses[f"center{index}/heatmap"] = (
            config.heatmap_weight * gaussian_focal_loss(probability, target.heatmap) / peaks
        )
        chosen = task.regression().flatten(2).transpose(1, 2)
        chosen = chosen.gather(1, target.cell.unsqueeze(-1).expand(-1, -1, 10))
        weights = (
            target.valid.unsqueeze(-1) * ~target.numbers.isnan() * chosen.new_tensor(config.dimension_weights)
        )
        distance = (chosen - target.numbers.nan_to_num(0.0)).abs() * weights
        count = _box_count(target.valid.sum())
        if config.separate_terms:
            for name, (begin, end) in _TERMS.items():
                total = distance[..., begin:end].sum() / (count + 1e-4 + _FLOAT_EPSILON)
                losses[f"center{index}/{name}"] = config.box_weight * total
        else:
            losses[f"center{index}/box"] = config.box_weight * distance.sum() / (count + _FLOAT_EPSILON)
    return losses


def _box_count(count: Tensor) -> float:
    """Boxes of a task, averaged over processes, almost zero if there are none."""
    value = count.detach().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value = value / torch.distributed.get_world_size()
    return max(float(value), 1e-4)
