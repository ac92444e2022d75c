"""How far away the objects of 2D labels are. Who draws rectangles labels what can be seen, and that is farther than a detector answers for:
explained by a box within its range, a rectangle of a car at 100 m makes a toy car of it.

The distance comes from the depth inside the rectangle, or else from its height and the usual height of its class. The second is rough (a
low truck seems farther away than it is), good enough to say of whom nothing should be learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

# m; what nuScenes' annotated objects measure on average, and Waymo's three classes
TYPICAL_HEIGHTS = {
    "car": 1.7, "truck": 2.8, "bus": 3.4, "trailer": 3.9, "construction_vehicle": 3.2, "pedestrian": 1.8, "motorcycle": 1.5,
    "bicycle": 1.3, "traffic_cone": 1.1, "barrier": 1.0, "vehicle": 1.8, "cyclist": 1.8,
}  # fmt: skip
_BORDER = 0.5  # px; a rectangle so near to the upper or lower border may be cut


def label_distance(
    rectangles: Tensor, heights: Tensor, depth: Tensor, intrinsics: Tensor, image_height: int
) -> Tensor:
    """Distance [n] (m, in the ground plane of a level camera) of labelled objects, NaN where it can't be told.

    rectangles [n, 4]: px of an undistorted image, from its upper left corner. heights [n]: m, the usual ones of their classes, NaN = not
    known. depth [n]: m along the optical axis, NaN = not known. intrinsics [3, 3] in the same pixels. A rectangle that touches the upper
    or lower border shows a part of the object, so its height says nothing.
    """
    top, bottom = rectangles[:, 1], rectangles[:, 3]
    whole = (top > _BORDER) & (bottom < image_height - _BORDER) & (bottom > top)
    by_height = torch.where(whole, intrinsics[1, 1] * heights / (bottom - top), torch.nan)
    along_axis = torch.where(depth.isfinite(), depth.to(by_height.dtype), by_height)
    sideways = ((rectangles[:, 0] + rectangles[:, 2]) / 2 - intrinsics[0, 2]) / intrinsics[0, 0]
    return along_axis * (1 + sideways**2).sqrt()
