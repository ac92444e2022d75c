"""The rectangle that a 3D box covers in an image, differentiable in the box ("2D supervised fine-tuning", section III, eq. 1).

Pixels count from the image's upper left corner, so an image spans [0, W] x [0, H] (see `SurroundFrame`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# The twelve edges between the corners of `box_corners`: corners whose numbers differ in one bit.
EDGES = ((0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7))


@dataclass(frozen=True)
class ProjectionRule:
    """Which boxes have a rectangle. near: m along the optical axis; boxes are cut there. min_center_depth: m, a box whose centre is nearer
    has none. min_side: px, rectangles that are narrower or lower after clipping don't count."""

    near: float = 0.1
    min_center_depth: float = 0.5
    min_side: float = 2.0


@dataclass(frozen=True)
class VisibilityRule:
    """Which objects someone who labels rectangles would have labelled.

    min_area: px² of the clipped rectangle in an image 1600 px wide (scaled with the square of the width). min_inside: smallest share of
    the unclipped rectangle that lies in the image. min_lidar_points: for labels made from 3D ones, where points were counted.
    """

    min_area: float = 100.0
    min_inside: float = 0.2
    min_lidar_points: int = 1

    def large_enough(self, projected: ProjectedBoxes, image_width: int) -> Tensor:
        """bool [...]: enough of the box is inside the image, and it is large enough."""
        area = rectangle_area(projected.rectangles)
        share = area / rectangle_area(projected.unclipped).clamp(min=1e-9)
        least = self.min_area * (image_width / 1600.0) ** 2
        return projected.valid & (area >= least) & (share >= self.min_inside)


@dataclass(frozen=True)
class ProjectedBoxes:
    """rectangles, unclipped [..., 4]: x min, y min, x max, y max (px) after and before clipping to the image, zeros for boxes that lie
    wholly behind the near plane. depth [...]: m of the box centre along the optical axis. valid bool [...]: the box counts in this image.
    """

    rectangles: Tensor
    unclipped: Tensor
    depth: Tensor
    valid: Tensor


def box_corners(boxes: Tensor) -> Tensor:
    """Corners [..., 8, 3] (m) of boxes [..., >=7] (x, y, z of the centre, length, width, height, yaw): bits of the index are (x, y, z), 0 =
    minus half, 1 = plus half of the own axis, as in `Boxes3D.corners`."""
    bits = [[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]
    signs = torch.tensor(bits, dtype=boxes.dtype, device=boxes.device) - 0.5
    local = signs * boxes[..., None, 3:6]
    cos, sin = boxes[..., 6:7].cos(), boxes[..., 6:7].sin()
    x = local[..., 0] * cos - local[..., 1] * sin
    y = local[..., 0] * sin + local[..., 1] * cos
    return torch.stack([x, y, local[..., 2]], -1) + boxes[..., None, :3]


def project_boxes(
    boxes: Tensor, image_from_working: Tensor, image_size: tuple[int, int], rule: ProjectionRule | None = None
) -> ProjectedBoxes:
    """Rectangles of boxes [..., >=7] (x, y, z of the gravity centre, length, width, height m, yaw rad; working frame).

    image_from_working [..., 4, 4]: working points -> (u z, v z, z, 1), px; leading dimensions broadcast against those of the boxes' leading
    dimensions (without the last, which counts boxes): boxes [B, 1, M, 7] and matrices [B, V, 4, 4] give [B, V, M]. image_size: (height,
    width), px.

    A box that crosses the plane z = near is cut there: where an edge crosses it, the crossing point takes the place of the corner behind,
    so nothing is divided by a depth that isn't positive, and gradients flow through the crossing. The extremes are hard minima and maxima
    (subgradients), clamped to the image (no gradient outside). The rectangle is that of the whole projection, then clipped, which is what
    min/max of the corners means; for a box that leaves the image on a slant, it is a little larger than that of the visible part.

    valid: centre depth > min_center_depth, some corner in front of the near plane, both sides of the clipped rectangle >= min_side.
    """
    rule = rule or ProjectionRule()
    height, width = image_size
    corners = _apply(image_from_working, box_corners(boxes))  # [..., M, 8, 3] (u z, v z, z)
    start, end = corners[..., [a for a, _ in EDGES], :], corners[..., [b for _, b in EDGES], :]
    ahead = corners[..., 2] > rule.near
    step = end[..., 2] - start[..., 2]
    crosses = (start[..., 2] > rule.near) != (end[..., 2] > rule.near)
    share = (rule.near - start[..., 2]) / torch.where(crosses, step, torch.ones_like(step))
    # Where an edge doesn't cross, `share` is meaningless and may be huge; it must not reach the gradient even times zero.
    share = torch.where(crosses, share, torch.zeros_like(share))
    crossing = (start + share.unsqueeze(-1) * (end - start))[..., :2] / rule.near
    safe = torch.where(ahead, corners[..., 2], torch.ones_like(corners[..., 2]))
    points = torch.cat([corners[..., :2] / safe.unsqueeze(-1), crossing], -2)  # [..., M, 20, 2]
    used = torch.cat([ahead, crosses], -1).unsqueeze(-1)
    some = ahead.any(-1)
    low = torch.where(used, points, torch.inf).amin(-2)
    high = torch.where(used, points, -torch.inf).amax(-2)
    unclipped = torch.where(some.unsqueeze(-1), torch.cat([low, high], -1), 0.0)
    limits = unclipped.new_tensor([width, height, width, height])
    rectangles = torch.minimum(unclipped.clamp(min=0.0), limits)
    depth = _apply(image_from_working, boxes[..., :3].unsqueeze(-2))[..., 0, 2]
    sides = rectangles[..., 2:] - rectangles[..., :2]
    valid = some & (depth > rule.min_center_depth) & (sides >= rule.min_side).all(-1)
    return ProjectedBoxes(rectangles, unclipped, depth, valid)


def surface_depth(boxes: Tensor, image_from_working: Tensor, near: float = 0.1) -> Tensor:
    """Depth [..., M] (m along the optical axis) of the side of each box that looks at the camera, in its middle; at least `near`.

    What a depth map shows of an object, which lies up to half a length before its centre. Shapes as in `project_boxes`. The way from the
    centre to that side, min(l / 2 |cos|, w / 2 |sin|) along the level line of sight, is a constant to gradients: a depth moves boxes, it
    doesn't turn or stretch them.
    """
    camera = torch.linalg.inv(image_from_working.double())[..., :3, 3].to(boxes.dtype).unsqueeze(-2)
    with torch.no_grad():
        sight = (boxes[..., :3] - camera)[..., :2]
        sight = sight / sight.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        cos, sin = boxes[..., 6].cos(), boxes[..., 6].sin()
        along = (sight[..., 0] * cos + sight[..., 1] * sin).abs().clamp(min=1e-6)
        across = (sight[..., 1] * cos - sight[..., 0] * sin).abs().clamp(min=1e-6)
        half = torch.minimum(boxes[..., 3] / (2 * along), boxes[..., 4] / (2 * across))
        nearer = half * (image_from_working[..., None, 2, :2] * sight).sum(-1)
    depth = _apply(image_from_working, boxes[..., :3].unsqueeze(-2))[..., 0, 2]
    return (depth - nearer).clamp(min=near)


def _apply(matrix: Tensor, points: Tensor) -> Tensor:
    """points [..., M, P, 3] by matrices [..., 4, 4] -> [..., M, P, 3], summed by hand so that autocast rounds nothing."""
    rotation, shift = matrix[..., None, None, :3, :3], matrix[..., None, None, :3, 3]
    return (rotation * points.unsqueeze(-2)).sum(-1) + shift


def rectangle_area(rectangles: Tensor) -> Tensor:
    """px² [...] of rectangles [..., 4] (x min, y min, x max, y max); 0 for empty ones."""
    return (rectangles[..., 2:] - rectangles[..., :2]).clamp(min=0.0).prod(-1)


def center_form(rectangles: Tensor) -> Tensor:
    """(x, y of the centre, width, height) [..., 4] of (x min, y min, x max, y max)."""
    low, high = rectangles[..., :2], rectangles[..., 2:]
    return torch.cat([(low + high) / 2, high - low], -1)


def intersection_area(first: Tensor, second: Tensor) -> Tensor:
    """px² [...] that two broadcastable sets of rectangles [..., 4] share."""
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0.0).prod(-1)


def rectangle_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union [...] of broadcastable rectangles [..., 4]."""
    shared = intersection_area(first, second)
    union = rectangle_area(first) + rectangle_area(second) - shared
    return shared / union.clamp(min=1e-9)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """GIoU [...] in -1..1 of broadcastable rectangles [..., 4] (arXiv 1902.09630): |I|/|U| - |E without U|/|E|, E the smallest rectangle
    around both."""
    shared = intersection_area(first, second)
    union = (rectangle_area(first) + rectangle_area(second) - shared).clamp(min=1e-9)
    low = torch.minimum(first[..., :2], second[..., :2])
    high = torch.maximum(first[..., 2:], second[..., 2:])
    around = (high - low).clamp(min=0.0).prod(-1).clamp(min=1e-9)
    return shared / union - (around - union) / around
