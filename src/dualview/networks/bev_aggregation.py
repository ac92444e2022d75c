"""BEV aggregation: instances read the bird's-eye-view map at their keypoints (DualViewDistill, arXiv
2510.10287)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.keypoints import FIXED_KEYPOINTS, KeypointGenerator
from dualview.ops.deformable_aggregation import OUTSIDE, deformable_aggregation


@dataclass(frozen=True)
class BevView:
    """The BEV map of a frame: features [B, C, Y, X] in the working frame, and where its cells lie."""

    features: Tensor
    grid: BevGrid


class BevAggregation(nn.Module):
    """f' = f + BEVAgg(f, a, e, F_bev): features [B, N, C] -> [B, N, C].

    Own keypoints, of which x and y count; one softmax over the keypoints of a group; no camera embedding.
    Outside the map the features are zero; with `validity_mask` an instance that has no keypoint on the map is
    left exactly as it is, whatever the map holds, instead of receiving the output layer's bias and, within half a
    cell of the edge, a part of the outermost cells.
    """

    def __init__(
        self,
        dims: int,
        groups: int = 8,
        fixed_keypoints: tuple[tuple[float, float, float], ...] = FIXED_KEYPOINTS,
        learned_keypoints: int = 6,
        point_dropout: float = 0.15,
        validity_mask: bool = True,
    ) -> None:
        super().__init__()
        if dims % groups:
            raise ValueError(f"{dims} channels can't be cut into {groups} groups; choose a divisor")
        self.groups, self.point_dropout, self.validity_mask = groups, point_dropout, validity_mask
        self.keypoints = KeypointGenerator(dims, fixed_keypoints, learned_keypoints)
        self.weights = nn.Linear(dims, groups * self.keypoints.count)
        self.output_projection = nn.Linear(dims, dims)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform attention at first, Xavier output without bias."""
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        nn.init.xavier_uniform_(self.output_projection.weight)
        nn.init.zeros_(self.output_projection.bias)
        self.keypoints.reset_parameters()

    def forward(self, features: Tensor, anchors: Tensor, embedding: Tensor, bev: BevView) -> Tensor:
        """features, embedding [B, N, C], anchors [B, N, 11] in the frame of the map."""
        locations = bev.grid.normalized(self.keypoints(anchors, features))  # [B, N, K, 2]
        on_map = ((locations >= 0) & (locations <= 1)).all(-1).any(-1, keepdim=True)  # [B, N, 1]
        if self.validity_mask:
            locations = torch.where(on_map.unsqueeze(-1), locations, OUTSIDE)
        logits = self.weights(features + embedding)
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        weights = logits.unflatten(-1, (self.keypoints.count, self.groups)).softmax(2)
        if self.training and self.point_dropout > 0:
            keep = torch.rand(*weights.shape[:3], 1, device=weights.device) > self.point_dropout
            weights = weights * keep / (1 - self.point_dropout)
        gathered = deformable_aggregation(
            [bev.features.unsqueeze(1)], locations.unsqueeze(1), weights[:, :, None, None]
        )
        output = self.output_projection(gathered)
        if self.validity_mask:
            output = torch.where(on_map, output, 0.0)
        return features + output
