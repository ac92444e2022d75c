"""From the centre head's maps to boxes: the best cells, and suppression of what overlaps (CenterPoint's and BEVDet's
tables).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D
from dualview.networks.box_suppression import suppress_by_distance, suppress_by_overlap
from dualview.networks.center_head import CenterBoxes, TaskPrediction, decode_task

# Square of the distance (m^2) within which one of two centres goes, by class; alike within the published tasks. Of two
# classes in one task the smaller counts: a cone may stand beside a truck.
SQUARED_RADIUS = {
    "car": 4.0, "truck": 12.0, "construction_vehicle": 12.0, "bus": 10.0, "trailer": 10.0, "barrier": 1.0,
    "motorcycle": 0.85, "bicycle": 0.85, "pedestrian": 0.175, "traffic_cone": 0.175,
}  # fmt: skip
# Factor on the size of boxes before their overlap is taken (scale-NMS: BEVDet, section 3.4), and the overlap allowed.
SCALE = {
    "truck": 0.7, "construction_vehicle": 0.7, "bus": 0.4, "trailer": 0.55, "barrier": 1.1, "pedestrian": 4.5,
    "traffic_cone": 9.0,
}  # fmt: skip
OVERLAP = {"pedestrian": 0.5, "traffic_cone": 0.5}
_OVERLAP = 0.2


@dataclass(frozen=True)
class CenterDecodingConfig:
    """suppression "circle": by the distance of centres (CenterPoint); "rotate": by the overlap of scaled rectangles,
    for barriers by distance (BEVDet); "none". candidates: cells a task; per_task: boxes of a task that stay. limit (m):
    largest |x| and |y|.
    """

    suppression: Literal["circle", "rotate", "none"] = "circle"
    candidates: int = 500
    per_task: int = 83
    limit: float = 61.2
    height_limit: float = 10.0

    def __post_init__(self) -> None:
        if min(self.candidates, self.per_task) < 1:
            raise ValueError(f"candidates {self.candidates} and per_task {self.per_task} must be at least 1")
        if not (self.limit > 0 and self.height_limit > 0):
            raise ValueError(f"limit {self.limit} and height_limit {self.height_limit} must be positive (m)")


def decode_centers(
    predictions: Sequence[TaskPrediction],
    tasks: Sequence[Sequence[int]],
    grid: BevGrid,
    class_names: Sequence[str],
    config: CenterDecodingConfig,
    score_threshold: float,
) -> list[Boxes3D]:
    """Boxes of every sample, in the frame of the grid and on the CPU, task by task, the best of a task first; only
    what scores above `score_threshold`. track_id is -1.
    """
    limits = (*(-config.limit,) * 2, -config.height_limit, *(config.limit,) * 2, config.height_limit)
    samples: list[list[Boxes3D]] = [[] for _ in range(len(predictions[0].heatmap))]
    for prediction, task in zip(predictions, tasks, strict=True):
        names = [class_names[label] for label in task]
        found = decode_task(prediction, grid, config.candidates, score_threshold, limits)
        for sample, boxes in zip(samples, found, strict=True):
            finite = boxes.boxes.isfinite().all(1)
            boxes = CenterBoxes(boxes.boxes.cpu(), boxes.scores.cpu(), boxes.labels.cpu())[finite.cpu()]
            sample.append(_as_boxes(boxes[suppress(boxes, names, config)], torch.tensor(task)))
    return [_joined(parts) for parts in samples]


def suppress(boxes: CenterBoxes, names: Sequence[str], config: CenterDecodingConfig) -> Tensor:
    """Indices of the boxes of one task (classes `names`) that stay, best first."""
    if config.suppression == "none" or not len(boxes.scores):
        return boxes.scores.argsort(descending=True, stable=True)[: config.per_task]
    if config.suppression == "circle" or list(names) == ["barrier"]:
        radius = torch.tensor([SQUARED_RADIUS.get(name, 1.0) for name in names])[boxes.labels]
        return suppress_by_distance(boxes.boxes[:, :2], boxes.scores, radius, config.per_task)
    scale = torch.tensor([SCALE.get(name, 1.0) for name in names])[boxes.labels]
    scaled = boxes.boxes.clone()
    scaled[:, 3:6] *= scale.unsqueeze(1).to(scaled)
    overlap = max(OVERLAP.get(name, _OVERLAP) for name in names)
    return suppress_by_overlap(scaled, boxes.scores, overlap, 1000, config.per_task)


def _as_boxes(found: CenterBoxes, task: Tensor) -> Boxes3D:
    """Boxes of one task with the labels of the whole class list."""
    values = found.boxes.float()
    return Boxes3D(
        center=values[:, :3], size=values[:, 3:6], yaw=values[:, 6],
        velocity=torch.cat([values[:, 7:9], torch.zeros(len(values), 1)], 1), label=task[found.labels],
        score=found.scores.float(), track_id=torch.full((len(values),), -1, dtype=torch.int64),
    )  # fmt: skip


def _joined(parts: list[Boxes3D]) -> Boxes3D:
    names = Boxes3D.__dataclass_fields__
    return Boxes3D(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
