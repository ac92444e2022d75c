"""The 2D labels of one image of a training sample, as the image-box loss takes them.

From a recording to here: `read_labels_2d` gives the labels of every image, `network_labels` puts them into the network's image, and
`DepthStore.box_depth` reads their depth (by the labels' own rectangles in the recorded image, so no augmentation matters). Here the image
augmentation follows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualview.geometry.box_projection import VisibilityRule, rectangle_area
from dualview.scene.labels_2d.labels import NetworkLabels
from dualview.supervision.image_box_matching import ImageBoxTruth


def image_truth(
    labels: NetworkLabels,
    depth: Tensor,
    augmented_from_original: Tensor,
    image_size: tuple[int, int],
    labelled_classes: Tensor | None = None,
    doubtful: Tensor | None = None,
    rule: VisibilityRule | None = None,
    delay: float = 0.0,
) -> ImageBoxTruth:
    """The truth of one image. depth [n]: m of each rectangle of `labels`, NaN = not known (depth doesn't change with the image).

    augmented_from_original [3, 3]: the image augmentation. labelled_classes bool [classes]: those that were labelled, None = all.
    doubtful bool [n]: of which nothing is to be learned, None = none. delay: s from the sample's instant to the image's exposure. Doubtful
    rectangles, and those of which the augmentation leaves less than the visibility rule's share, or too few pixels, become ignored ones.
    """
    rule = rule or VisibilityRule()
    height, width = image_size
    limits = labels.rectangles.new_tensor([width, height, width, height])

    def moved(rectangles: Tensor) -> tuple[Tensor, Tensor]:
        whole = move_rectangles(rectangles, augmented_from_original)
        return whole, torch.minimum(whole.clamp(min=0.0), limits)

    whole, clipped = moved(labels.rectangles)
    area = rectangle_area(clipped)
    enough = (area >= rule.min_inside * rectangle_area(whole)) & (area >= rule.min_area * (width / 1600) ** 2)
    if doubtful is not None:
        enough &= ~doubtful
    ignored = torch.cat([moved(labels.ignored)[1], clipped[~enough]])
    return ImageBoxTruth(
        clipped[enough],
        labels.labels[enough],
        depth.to(clipped.dtype)[enough],
        ignored[rectangle_area(ignored) > 0],
        labelled_classes,
        delay,
    )


def move_rectangles(rectangles: Tensor, matrix: Tensor) -> Tensor:
    """Rectangles [n, 4] around what an affine map [3, 3] of pixels makes of rectangles [n, 4]; not clipped."""
    corners = rectangles[:, [0, 1, 2, 1, 0, 3, 2, 3]].view(-1, 4, 2)
    matrix = matrix.to(rectangles.dtype)
    corners = corners @ matrix[:2, :2].T + matrix[:2, 2]
    return torch.cat([corners.amin(1), corners.amax(1)], -1)
