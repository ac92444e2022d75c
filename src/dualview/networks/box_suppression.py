"""Suppression of overlapping boxes in the bird's-eye view, for detectors whose heads don't settle it
themselves.
"""

from __future__ import annotations

import numpy as np
import shapely
import torch
from torch import Tensor

from dualview.geometry.boxes import Boxes3D


def suppress_by_distance(centers: Tensor, scores: Tensor, squared_radius: float, keep: int) -> Tensor:
    """Indices of the boxes that stay, best first: a box goes if a better one's centre lies within the radius.

    centers [M, 2] m, scores [M]. squared_radius in m^2: the published "min_radius" is compared with squared
    distances.
    """
    distance = torch.cdist(
        centers.double(), centers.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    return _greedy(distance <= squared_radius, scores)[:keep]


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
    removed = torch.zeros(len(scores), dtype=torch.bool)
    kept = []
    for index in order.tolist():
        if not removed[index]:
            kept.append(index)
            removed |= conflicts[index].cpu()
    return torch.tensor(kept, dtype=torch.int64)
