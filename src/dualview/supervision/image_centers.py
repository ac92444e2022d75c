"""Objects as points in the images: a heatmap of their centres, and what an image says of each ("Objects as Points",
arXiv 1904.07850; the numbers of FCOS3D, arXiv 2104.10956).

A gradient that reaches the image features through depth, lift and bird's-eye view is thin. Asked right where an object is
seen what it is, how far and how large, the backbone learns to tell objects in a fraction of the steps (BEVFormer v2, arXiv
2211.10439, section 3.2, finds the same of BEV detectors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.box_projection import project_boxes
from dualview.networks.perspective_aggregation import project_to_images
from dualview.supervision.center_targets import gaussian_radius, splat
from dualview.supervision.detection_loss import average_count, gaussian_focal_loss
from dualview.supervision.ground_truth import GroundTruth

NUMBERS = 8  # offset x, y (cells), ln depth, ln length, width, height (m), sine and cosine of the seen heading
MIN_OVERLAP = 0.5  # of a rectangle moved by the Gaussian's radius with itself


@dataclass(frozen=True)
class ImageCenterSettings:
    """weight: of the heatmap's loss; box_weight: of the numbers'. hidden_channels: of the small head that training adds."""

    weight: float = 1.0
    box_weight: float = 1.0
    hidden_channels: int = 64

    def __post_init__(self) -> None:
        if self.weight < 0 or self.box_weight < 0 or self.hidden_channels < 1:
            raise ValueError(
                f"weight {self.weight} and box_weight {self.box_weight} must be 0 or more, hidden_channels "
                f"{self.hidden_channels} at least 1"
            )


@dataclass(frozen=True)
class ImageCenterTargets:
    """heatmap [B, V, classes, h, w] in 0..1; for each of P centres inside an image: its cell (int64 [P], into the flattened
    [B, V, h, w]) and its numbers [P, 8] (see `NUMBERS`).
    """

    heatmap: Tensor
    cell: Tensor
    numbers: Tensor


@torch.no_grad()
def image_center_targets(
    truths: Sequence[GroundTruth],
    image_from_working: Tensor,
    camera_mask: Tensor,
    image_size: tuple[int, int],
    stride: int,
    classes: int,
) -> ImageCenterTargets:
    """Targets of a batch. image_from_working [B, V, 4, 4]; camera_mask bool [B, V]: masked images show nothing; image_size
    (height, width) px; stride of the maps.

    A box counts in every image that holds the projection of its centre. Its heading is told as seen: relative to the ray from
    the camera, which is what the look of an object depends on.
    """
    (height, width), device = (side // stride for side in image_size), image_from_working.device
    batch, cameras = image_from_working.shape[:2]
    heatmap = torch.zeros(batch, cameras, classes, height, width)
    cells, numbers = [torch.zeros(0, dtype=torch.int64)], [torch.zeros(0, NUMBERS)]
    matrices, masks = image_from_working.float().cpu(), camera_mask.cpu()
    for b, truth in enumerate(truths):
        boxes, labels = truth.boxes.float().cpu(), truth.labels.cpu()
        if not len(labels):
            continue
        projected = project_boxes(boxes[:, :7], matrices[b], image_size)  # [V, M]
        located, _ = project_to_images(boxes[None, :, None, :3], matrices[b][None], image_size)
        place = located[0, :, :, 0] * boxes.new_tensor([width, height])  # [V, M, 2] cells
        inside = (place >= 0).all(-1) & (place < place.new_tensor([width, height])).all(-1)
        scales = matrices[b, :, 2, :3].norm(dim=-1)  # [V] camera's metres in one of the working frame, which may be scaled
        origins = -torch.linalg.solve(matrices[b, :, :3, :3], matrices[b, :, :3, 3])  # [V, 3] where the cameras are
        for v, m in (inside & projected.valid & masks[b].unsqueeze(1)).nonzero().tolist():
            column, row = (int(value) for value in place[v, m].floor())
            x_min, y_min, x_max, y_max = (projected.rectangles[v, m] / stride).tolist()
            radius = int(max(gaussian_radius(x_max - x_min, y_max - y_min, MIN_OVERLAP), 1.0))
            splat(heatmap[b, v, int(labels[m])], column, row, radius)
            cells.append(torch.tensor([((b * cameras + v) * height + row) * width + column]))
            numbers.append(_numbers(boxes[m], place[v, m], projected.depth[v, m], origins[v], scales[v]))
    return ImageCenterTargets(heatmap.to(device), torch.cat(cells).to(device), torch.cat(numbers).to(device))


def _numbers(box: Tensor, place: Tensor, depth: Tensor, camera: Tensor, scale: Tensor) -> Tensor:
    """The numbers [1, 8] of one box [9] at `place` [2] (cells) of the image of a camera at [3] (m), in the camera's metres."""
    ray = box[:2] - camera[:2]
    seen = box[6] - torch.atan2(ray[1], ray[0])
    known = [place - place.floor(), depth.log()[None], (scale * box[3:6]).log(), torch.stack([seen.sin(), seen.cos()])]
    return torch.cat(known)[None]


def image_center_losses(heatmap: Tensor, numbers: Tensor, targets: ImageCenterTargets) -> dict[str, Tensor]:
    """Terms "heatmap" (CornerNet's focal loss, a peak) and "box" (the mean absolute error of the numbers, a centre).

    heatmap: logits [B, V, classes, h, w]; numbers [B, V, 8, h, w] as `image_center_targets` has them.
    """
    probability = heatmap.float().sigmoid().clamp(1e-4, 1 - 1e-4)
    peaks = average_count((targets.heatmap == 1).sum())
    chosen = numbers.float().permute(0, 1, 3, 4, 2).reshape(-1, NUMBERS)[targets.cell]
    error = (chosen - targets.numbers).abs().sum(0)
    return {
        "heatmap": gaussian_focal_loss(probability, targets.heatmap) / peaks,
        "box": error.sum() / (NUMBERS * average_count(targets.numbers.new_tensor(len(targets.cell)))),
    }
