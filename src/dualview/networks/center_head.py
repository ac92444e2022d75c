"""Centre head: objects as peaks of a heatmap over the bird's-eye-view map (CenterPoint: Yin et al. 2021,
arXiv 2006.11275).

In a detector of instances it is an auxiliary task that trains the BEV map densely, and its peaks can start
instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid

HEATMAP_PRIOR = -2.19  # bias of the heatmap: a probability of 0.1
REGRESSIONS = {"offset": 2, "height": 1, "log_size": 3, "heading": 2, "velocity": 2}


@dataclass(frozen=True)
class CenterHeadConfig:
    """tasks: groups of class labels that share a heatmap branch (published: six groups of alike classes; one
    group of all is the lightest). proposals: instances of the decoder that start at the heatmap's peaks
    instead of at learned anchors (0 = none). evidence: the decoder's class logits start from the heatmap's
    at each instance's place.
    """

    tasks: tuple[tuple[int, ...], ...] = ((0,), (1, 2), (3, 4), (5,), (6, 7), (8, 9))
    shared_channels: int = 64
    branch_channels: int = 64
    proposals: int = 0
    evidence: bool = False

    def __post_init__(self) -> None:
        labels = [label for task in self.tasks for label in task]
        if len(set(labels)) != len(labels) or not labels:
            raise ValueError(f"tasks {self.tasks} must hold every class label once")


@dataclass(frozen=True)
class TaskPrediction:
    """What one task says of each cell: heatmap logits [B, classes, Y, X]; offset [B, 2, Y, X] of the centre
    from the cell's lower corner (cells, x then y), height [B, 1, ...] of the centre (m), log_size [B, 3, ...]
    (length, width, height, ln m), heading [B, 2, ...] (sin, cos), velocity [B, 2, ...] (m/s).
    """

    heatmap: Tensor
    offset: Tensor
    height: Tensor
    log_size: Tensor
    heading: Tensor
    velocity: Tensor

    def regression(self) -> Tensor:
        """All ten numbers [B, 10, Y, X], in the order of the fields."""
        return torch.cat([self.offset, self.height, self.log_size, self.heading, self.velocity], 1)


class CenterHead(nn.Module):
    """A shared convolution, then for every task one branch (two convolutions) for the heatmap and for each
    regression.
    """

    def __init__(self, config: CenterHeadConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.shared = _convolution(in_channels, config.shared_channels)
        self.tasks = nn.ModuleList(_task(config, len(task)) for task in config.tasks)

    def forward(self, bev: Tensor) -> list[TaskPrediction]:
        """BEV map [B, C, Y, X] -> one prediction a task."""
        shared = self.shared(bev)
        return [
            TaskPrediction(**{name: branch(shared).float() for name, branch in task.items()})  # type: ignore[operator]
            for task in self.tasks
        ]


def _convolution(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _task(config: CenterHeadConfig, classes: int) -> nn.ModuleDict:
    branches = nn.ModuleDict()
    for name, outputs in {"heatmap": classes, **REGRESSIONS}.items():
        last = nn.Conv2d(config.branch_channels, outputs, 3, padding=1)
        if name == "heatmap" and last.bias is not None:
            nn.init.constant_(last.bias, HEATMAP_PRIOR)
        branches[name] = nn.Sequential(*_convolution(config.shared_channels, config.branch_channels), last)
    return branches


@dataclass(frozen=True)
class CenterBoxes:
    """Boxes of one sample and task, best first: boxes [M, 9] (centre, length, width, height m, yaw rad, vx,
    vy m/s), scores [M], labels [M] within the task.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def __getitem__(self, index: Tensor) -> CenterBoxes:
        return CenterBoxes(self.boxes[index], self.scores[index], self.labels[index])


def decode_task(
    task: TaskPrediction,
    grid: BevGrid,
    count: int,
    score_threshold: float | None = None,
    limits: Sequence[float] | None = None,
    peaks_only: bool = False,
) -> list[CenterBoxes]:
    """The best `count` cells of every sample as boxes.

    score_threshold: only above it. limits: x, y, z of the lowest and of the highest centre. peaks_only: a
    cell counts only if no neighbour of its class is higher (CenterNet's suppression; the published decoders
    leave this to box suppression).
    """
    scores = task.heatmap.sigmoid()
    if peaks_only:
        scores = scores * (functional.max_pool2d(scores, 3, 1, 1) == scores)
    batch, columns = len(scores), scores.shape[-1]
    count = min(count, scores[0, 0].numel())
    by_class, cells = scores.flatten(2).topk(count, -1)  # [B, classes, K]
    best, order = by_class.flatten(1).topk(count, -1)  # [B, K]
    labels = order // count
    cells = cells.flatten(1).gather(1, order)
    values = (
        task.regression().flatten(2).gather(2, cells.unsqueeze(1).expand(-1, 10, -1)).transpose(1, 2)
    )  # [B, K, 10]
    x = (cells % columns + values[..., 0]) * grid.resolution + grid.x_min
    y = (cells // columns + values[..., 1]) * grid.resolution + grid.y_min
    yaw = torch.atan2(values[..., 6], values[..., 7])
    boxes = torch.cat(
        [
            torch.stack([x, y, values[..., 2]], -1),
            values[..., 3:6].exp(),
            yaw.unsqueeze(-1),
            values[..., 8:10],
        ],
        -1,
    )
    kept = torch.ones_like(best, dtype=torch.bool)
    if score_threshold is not None:
        kept &= best > score_threshold
    if limits is not None:
        low, high = boxes.new_tensor(limits[:3]), boxes.new_tensor(limits[3:])
        kept &= ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(-1)
    return [CenterBoxes(boxes[b], best[b], labels[b])[kept[b]] for b in range(batch)]


def propose_anchors(tasks: Sequence[TaskPrediction], grid: BevGrid, count: int) -> Tensor:
    """Box states [B, count, 11] of the highest peaks over all tasks and classes, detached: where instances
    may start.
    """
    per_task = [decode_task(task, grid, count, peaks_only=True) for task in tasks]
    states = []
    for sample in zip(*per_task, strict=True):
        boxes = torch.cat([part.boxes for part in sample])
        best = torch.cat([part.scores for part in sample]).topk(count).indices
        box = boxes[best].detach()
        # An untrained head may say anything; an instance must start at a box that exists.
        box = box.nan_to_num(0.0, 0.0, 0.0)
        size = box[:, 3:6].clamp(0.1, 30.0).log()
        velocity = functional.pad(box[:, 7:9].clamp(-40.0, 40.0), (0, 1))
        yaw = box[:, 6:7]
        states.append(torch.cat([box[:, :3].clamp(-500.0, 500.0), size, yaw.sin(), yaw.cos(), velocity], 1))
    return torch.stack(states)
