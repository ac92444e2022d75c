"""What a heatmap says of an instance: class logits read at its place, from which the decoder's own start.

A decoder that must learn every class from nothing learns slowly from little data. Where a centre head stands before it, the head's
logits at the instance's centre are a good first answer, for instances that start at its peaks (TransFusion, arXiv 2203.11496, section
3.2, gives them the category for the same reason) and for remembered ones alike; layers add what they know better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.center_head import TaskPrediction

FLOOR = -4.6  # logit of a place off the map: a probability of 0.01, the decoder's usual prior


@dataclass(frozen=True)
class ClassEvidence:
    """logits [B, classes, Y, X] in the order of the detector's labels, detached; the working frame's grid."""

    logits: Tensor
    grid: BevGrid

    @classmethod
    def of(
        cls, predictions: Sequence[TaskPrediction], tasks: Sequence[Sequence[int]], grid: BevGrid
    ) -> ClassEvidence:
        """The evidence of a centre head whose tasks hold the labels `tasks`."""
        order = torch.tensor([label for task in tasks for label in task])
        logits = torch.cat([prediction.heatmap for prediction in predictions], 1)
        return cls(logits[:, order.argsort().to(logits.device)].detach(), grid)

    def at(self, anchors: Tensor) -> Tensor:
        """Class logits [B, N, classes] at the centres of box states [B, N, 11]: bilinear between the cells' centres, `FLOOR` off
        the map.
        """
        where = self.grid.normalized(anchors[..., :2].detach()).float()
        above = (self.logits.float() - FLOOR).clamp_min(0.0)
        found = functional.grid_sample(above, 2 * where.unsqueeze(1) - 1, align_corners=False)
        return (FLOOR + found[:, :, 0]).transpose(1, 2)
