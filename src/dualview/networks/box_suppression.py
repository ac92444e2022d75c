"""Suppression of overlapping boxes in the bird's-eye view, for detectors whose heads don't settle it
themselves.
"""

from __future__ import annotations

import numpy as np
import shapely
import torch
from torch import Tensor

from dualview.geometry.boxes import Boxes3D


def suppress_by_distance(
    centers: Tensor, scores: Tensor, squared_radius: float | Tensor, keep: int
) -> Tensor:
    """Indices of the boxes that stay, best first: a box goes if a better one's centre lies within the radius.

    centers [M, 2] m, scores [M]. squared_radius in m^2: the published "min_radius" is compared with squared
    distances; [M]: of each box, and for two boxes the smaller one counts.
    """
    return _greedy(_near(centers, squared_radius), scores)[:keep]


def group_by_distance(centers: Tensor, scores: Tensor, squared_radius: Tensor, labels: Tensor) -> Tensor:
    """For each box the index [M] of the one that takes its place: itself, or the best that stays within the radius (as in
    `suppress_by_distance`) and has the same label.
    """
    conflicts = _near(centers, squared_radius) & (labels[:, None] == labels[None])
    taken = torch.full((len(scores),), -1, dtype=torch.int64)
    for index in _greedy(conflicts, scores).tolist():
        taken[conflicts[index].cpu() & (taken < 0)] = index
    return taken.to(labels.device)


def _near(centers: Tensor, squared_radius: float | Tensor) -> Tensor:
    distance = torch.cdist(
        centers.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    if isinstance(squared_radius, Tensor):
        squared_radius = torch.minimum(squared_radius[:, None], squared_radius[None])
    return distance <= squared_radius


def suppress_by_overlap(boxes: Tensor, scores: Tensor, threshold: float, consider: int, keep: int) -> Tensor:
    """Indices of the boxes that stay, best first: a box goes if its overlap with a better one reaches
    `threshold`.

    boxes [M, >= 7] (centre, length, width, height m, yaw rad); overlap is intersection over union of the
    turned rectangles. Only the best `consider` boxes are looked at.
    """
    order = scores.sort(descending=True, stable=True).indices[:consider]
    return order[_greedy(bev_overlap(boxes[order]) >= threshold, scores[order])[:keep]]


def bev_overlap(boxes: Tensor) -> Tensor:
    """Intersection over union [M, M] float64 of turned rectangles; boxes [M, >= 7]."""
    b = boxes.detach().cpu().double()
    zeros = torch.zeros(len(b))
    corners = Boxes3D(
        b[:, :3], b[:, 3:6], b[:, 6], torch.zeros(len(b), 3), zeros.long(), zeros, zeros.long()
    ).corners()[:, [0, 1, 3, 2], :2]
    rectangles = shapely.polygons(corners.numpy())
    area = shapely.area(rectangles)
    first, second = shapely.STRtree(rectangles).query(rectangles, predicate="intersects")
    shared = np.zeros((len(b), len(b)))
    shared[first, second] = shapely.area(shapely.intersection(rectangles[first], rectangles[second]))
    return torch.from_numpy(shared / np.maximum(area[:, None] + area[None, :] - shared, 1e-12))


def _greedy(conflicts: Tensor, scores: Tensor) -> Tensor:
    """Walk from the best score down; a box that is still there removes those it is in conflict with."""
    order = scores.sort(descending=True, stable=True).indices
    conflicts = conflicts.cpu()
    removed = torch.zeros(len(scores), dtype=torch.bool)
    kept = []
    for index in order.tolist():
        if not removed[index]:
            kept.append(index)
            removed |= conflicts[index]
    return torch.tensor(kept, dtype=torch.int64)
