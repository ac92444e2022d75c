"""Which LiDAR return each feature pixel shows, and which object it is of: the targets of TiG-BEV's depth losses.

Foreground means pixels hit by LiDAR, a few tens an object; boxes are not enlarged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from dualview.networks.lift_splat import DepthBins
from dualview.supervision.box_cells import offsets_in_boxes
from dualview.supervision.ground_truth import GroundTruth

# Which returns a feature pixel takes, as rows and columns of the image divided by the stride: "floor" those of its own patch, as
# the lift has its rays in the patches' middles; "round" those around the patch's first corner, as published, where the lift's
# rays begin at the image's corner (`corner_aligned`).
FeaturePixels = Literal["floor", "round"]


@dataclass(frozen=True)
class ObjectDepth:
    """depth [B, N, h, w] m of the nearest return in each feature pixel, 0 = none. object_index int64 [B, N, h,
    w]: 1 + index of the sample's box which that return lies in, 0 = none.
    """

    depth: Tensor
    object_index: Tensor


def object_depth_of_points(
    image_points: Tensor, in_box: Tensor, feature_size: tuple[int, int], stride: int, bins: DepthBins
) -> ObjectDepth:
    """From projected points, exactly as published (`PointToMultiViewDepthWithGTIndex`).

    image_points [B, N, P, 3]: u, v (px of the network's image), depth (m). in_box bool [B, M, P] or [B, N, M,
    P]: point lies in box. The pixel is round(u / stride), halves to even; depths outside the bins' range are
    left out; the nearest return wins; of several boxes around it the last one.
    """
    height, width = feature_size
    batch, cameras, count = image_points.shape[:3]
    membership = in_box if in_box.dim() == 4 else in_box.unsqueeze(1)
    number = torch.arange(1, membership.shape[2] + 1, device=in_box.device)
    owner = (membership.bool() * number[:, None]).flatten(0, 1)  # [B or B N, M, P]
    owner = owner.amax(1) if membership.shape[2] else owner.new_zeros(len(owner), count)
    owner = owner.view(batch, membership.shape[1], count).expand(batch, cameras, count)
    column, row = (image_points[..., :2] / stride).round().unbind(-1)
    depth = image_points[..., 2]
    kept = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    kept &= (depth >= bins.start) & (depth < bins.stop)
    image = torch.arange(batch * cameras, device=depth.device).view(batch, cameras, 1).expand_as(kept)
    cell = ((image * height + row.nan_to_num().long()) * width + column.nan_to_num().long())[kept]
    near_first = depth[kept].argsort(stable=True)
    cell = cell[near_first]
    order = cell.argsort(stable=True)
    cell = cell[order]
    first = torch.ones_like(cell, dtype=torch.bool)
    first[1:] = cell[1:] != cell[:-1]
    nearest = near_first[order][first]
    depth_map = depth.new_zeros(batch * cameras * height * width)
    object_map = owner.new_zeros(batch * cameras * height * width)
    depth_map[cell[first]] = depth[kept][nearest]
    object_map[cell[first]] = owner[kept][nearest]
    shape = (batch, cameras, height, width)
    return ObjectDepth(depth_map.view(shape), object_map.view(shape))


def object_depth_of_map(
    depth: Tensor,
    image_from_working: Tensor,
    truths: Sequence[GroundTruth],
    stride: int,
    bins: DepthBins,
    pixels: FeaturePixels = "floor",
) -> ObjectDepth:
    """From depth maps [B, N, H, W] (m, 0 = no return) at the network's image size, as training has them.

    The nearest return of each stride x stride patch (pixels: where the patches lie) is put back into the working
    frame (image_from_working [B, N, 4, 4], which holds every augmentation) and looked for in the sample's boxes.
    Depths outside the bins count as no return. A return in several boxes belongs to the last one.
    """
    batch, cameras, height, width = depth.shape
    if height % stride or width % stride:
        raise ValueError(
            f"depth map {height}x{width} can't be cut into patches of {stride}: choose the lift's own stride"
        )
    before = stride // 2 if pixels == "round" else 0  # px by which each patch begins earlier
    depth = functional.pad(depth, (before, -before, before, -before))
    inside = (depth >= bins.start) & (depth < bins.stop)
    patches = torch.where(inside, depth, torch.inf)
    patches = patches.view(batch, cameras, height // stride, stride, width // stride, stride).transpose(3, 4)
    nearest, place = patches.flatten(4).min(-1)  # [B, N, h, w]
    nearest = torch.where(nearest.isinf(), 0.0, nearest)
    objects = torch.zeros_like(place)
    for b, truth in enumerate(truths):
        camera, row, column = (nearest[b] > 0).nonzero().unbind(1)
        if not len(camera) or not len(truth.boxes):
            continue
        within = place[b, camera, row, column]
        pixel = torch.stack([column * stride + within % stride, row * stride + within // stride], -1) + 0.5 - before
        z = nearest[b, camera, row, column].double().unsqueeze(1)
        matrix = image_from_working[b].double()
        rays = torch.cat([pixel.double() * z, z], 1) - matrix[camera, :3, 3]
        points = torch.linalg.solve(matrix[:, :3, :3][camera], rays)
        boxes = truth.boxes.double()
        half = boxes[:, None, 3:6] / 2
        member = (offsets_in_boxes(points, boxes).abs() <= half).all(-1)  # [M, P]
        number = torch.arange(1, len(boxes) + 1, device=depth.device)
        objects[b, camera, row, column] = (member * number[:, None]).amax(0)
    return ObjectDepth(nearest, objects)
