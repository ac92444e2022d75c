"""Inner-feature distillation of TiG-BEV (Huang et al. 2022, arXiv 2212.13979, section 3.3): keypoints on each
object's bird's-eye view, and what their features say of one another, taught by a LiDAR teacher's map.

Inter-channel: Gram matrix C x C over the keypoints; inter-keypoint: Gram matrix K x K over the channels. Defaults
are the published code's; the paper's equations 5 to 8 swap the transposes of the two and don't normalise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.box_cells import usable_boxes
from dualview.supervision.ground_truth import GroundTruth
from dualview.supervision.numerics import full_precision, precise, zero_of

_SMALLEST_NORM = 1e-6


@dataclass(frozen=True)
class InnerFeatureConfig:
    """channel_weight: of the inter-channel term (published: 10 for one frame, 20 for BEVDepth4D without class
    balancing; 0 = off). keypoint_weight: of the inter-keypoint term. keypoints: along each side of a box, on its
    edges too. enlarge: metres added on *each* side before that; a pedestrian of 0.7 m becomes 3.9 m.
    gram: "row_normalized": each row has length 1, squared differences summed over a row, mean over rows and
    objects (published code); "plain": sum over objects of the L2 norm of the difference (equations 6 and 8).
    published_sampling: the published code's sampling places, up to one cell beside the true ones.
    chunk: objects whose Gram matrices are in memory at a time.
    """

    channel_weight: float = 10.0
    keypoint_weight: float = 100.0
    keypoints: int = 24
    enlarge: float = 1.6
    gram: Literal["row_normalized", "plain"] = "row_normalized"
    published_sampling: bool = False
    chunk: int = 16

    def __post_init__(self) -> None:
        if (
            not 2 <= self.keypoints <= 128
            or self.chunk < 1
            or self.enlarge < 0
            or min(self.channel_weight, self.keypoint_weight) < 0
        ):
            raise ValueError(
                f"{self}: 2 to 128 keypoints a side and at least 1 object a chunk; enlarge and weights 0 or more"
            )
        if not self.channel_weight and not self.keypoint_weight:
            raise ValueError("both weights of inner_feature are 0: say inner_feature: null to turn it off")


def box_keypoints(boxes: Tensor, keypoints: int, enlarge: float) -> Tensor:
    """Keypoints [M, K, K, 2] (x, y m) of boxes [M, >=7]: rows from the right to the left edge, columns from the
    front to the back edge, of boxes that grew by `enlarge` m on each side.
    """
    fraction = torch.linspace(0, 1, keypoints, device=boxes.device, dtype=boxes.dtype) - 0.5
    length, width = (boxes[:, 3:5] + 2 * enlarge).unbind(1)
    forward = -length[:, None, None] * fraction[None, None, :]
    left = width[:, None, None] * fraction[None, :, None]
    cos, sin = boxes[:, 6, None, None].cos(), boxes[:, 6, None, None].sin()
    x = forward * cos - left * sin + boxes[:, 0, None, None]
    y = forward * sin + left * cos + boxes[:, 1, None, None]
    return torch.stack([x, y], -1)


def sampling_locations(points: Tensor, grid: BevGrid, published: bool = False) -> Tensor:
    """Points [..., 2] (m) as `grid_sample` wants them with align_corners=False, clipped to the map's border."""
    location = grid.normalized(points)
    if published:
        cells = location.new_tensor([grid.columns, grid.rows])
        location = location * cells / (cells - 1)
    return (2 * location - 1).clamp(-1, 1)


def keypoint_features(
    bev: Tensor,
    grid: BevGrid,
    truths: Sequence[GroundTruth],
    config: InnerFeatureConfig,
    within: BevGrid | None = None,
) -> Tensor:
    """Features [M, C, K, K] of a BEV map [B, C, Y, X] at the keypoints of all the batch's boxes whose centre lies
    on the grid (on both, if another one is given as `within`).
    """
    samples = []
    for image, truth in zip(bev, truths, strict=True):
        boxes = truth.boxes[:, :7].to(bev.device, torch.float32)
        used = usable_boxes(boxes, grid)
        if within is not None:
            used &= usable_boxes(boxes, within)
        points = box_keypoints(boxes[used], config.keypoints, config.enlarge)
        location = sampling_locations(points, grid, config.published_sampling).to(precise(image))
        found = functional.grid_sample(
            precise(image).unsqueeze(0), location.flatten(0, 1).unsqueeze(0), align_corners=False
        ) if len(points) else zero_of(image) + image.new_zeros(1, image.shape[0], 0, config.keypoints)  # fmt: skip
        samples.append(found[0].unflatten(1, (-1, config.keypoints)).transpose(0, 1))
    return torch.cat(samples)


def inter_channel_loss(student: Tensor, teacher: Tensor, config: InnerFeatureConfig) -> Tensor:
    """Weighted difference of channel Gram matrices of features [M, C, K, K] of the same C (equations 5, 6)."""
    return config.channel_weight * _gram_loss(student.flatten(2), teacher.flatten(2), config)


def inter_keypoint_loss(student: Tensor, teacher: Tensor, config: InnerFeatureConfig) -> Tensor:
    """Weighted difference of keypoint Gram matrices of features [M, C_s, K, K] and [M, C_t, K, K] (equations 7,
    8); the numbers of channels may differ.
    """
    return config.keypoint_weight * _gram_loss(student.flatten(2).mT, teacher.flatten(2).mT, config)


def inner_feature_losses(
    student: Tensor,
    teacher: Tensor,
    truths: Sequence[GroundTruth],
    student_grid: BevGrid,
    teacher_grid: BevGrid,
    config: InnerFeatureConfig,
    embed: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Terms "inter_channel" and "inter_keypoint" of BEV maps [B, C_s, Y, X] and [B, C_t, Y', X'], weighted.

    embed: brings student keypoint features [M, C_s, K, K] to C_t channels for the inter-channel term only, as
    published; needed if C_s and C_t differ. Without boxes both terms are zero, with gradients of zeros.
    """
    losses: dict[str, Tensor] = {}
    with full_precision(student.device):
        ours = keypoint_features(student, student_grid, truths, config, teacher_grid)
        with torch.no_grad():
            theirs = keypoint_features(teacher, teacher_grid, truths, config, student_grid)
        if config.channel_weight > 0:
            embedded = ours if embed is None else embed(ours)
            if embedded.shape[1] != theirs.shape[1]:
                raise ValueError(
                    f"inter-channel distillation compares {embedded.shape[1]} student channels with {theirs.shape[1]} of the "
                    "teacher: give an embedding between them (networks/distillation_adapter.py)"
                )
            losses["inter_channel"] = inter_channel_loss(embedded, theirs, config)
        if config.keypoint_weight > 0:
            losses["inter_keypoint"] = inter_keypoint_loss(ours, theirs, config)
    return losses


def _gram_loss(student: Tensor, teacher: Tensor, config: InnerFeatureConfig) -> Tensor:
    """Distance of the Gram matrices [R, R] of rows [M, R, *] of student and teacher."""
    student, teacher = precise(student), precise(teacher.detach())
    total = zero_of(student)
    for ours, theirs in zip(student.split(config.chunk), teacher.split(config.chunk), strict=True):
        # A Gram matrix of keypoints is far larger than what it is made of: made again in backward, not kept.
        total = total + checkpoint(
            _gram_distance, ours, theirs, config.gram, use_reentrant=False, preserve_rng_state=False
        )
    if config.gram == "plain":
        return total
    return total / max(student.shape[0] * student.shape[1], 1)


def _gram_distance(student: Tensor, teacher: Tensor, gram: str) -> Tensor:
    ours, theirs = student @ student.mT, teacher @ teacher.mT
    if gram == "plain":
        return torch.linalg.vector_norm(ours - theirs, dim=(1, 2)).sum()
    return (_unit_rows(ours) - _unit_rows(theirs)).square().sum()


def _unit_rows(matrix: Tensor) -> Tensor:
    """Rows of length 1; rows of nothing stay so and get no gradient (a feature that is zero has no direction)."""
    norm = torch.linalg.vector_norm(matrix, dim=-1, keepdim=True)
    known = norm > _SMALLEST_NORM
    return torch.where(known, matrix, 0.0) / torch.where(known, norm, 1.0)
