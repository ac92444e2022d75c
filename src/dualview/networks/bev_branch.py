"""The BEV branch: one image feature map a camera -> depth network -> lift-splat -> BEV encoder ->
bird's-eye-view map.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_encoder import BevEncoder
from dualview.networks.depth_net import DepthNet
from dualview.networks.lift_splat import DepthBins, Rounding, frustum, lift_splat, plan_lift_splat
from dualview.ops.bev_pool import BevPoolPlan


@dataclass(frozen=True)
class BevBranchConfig:
    """Sizes of the BEV branch; the defaults are those of DualViewDistill with a ResNet-50.

    image_stride: stride of the image feature map that is lifted. `rounding` and `corner_aligned` are the
    geometry of BEVDet's published weights ("truncate", True); ours is exact ("floor", False).
    """

    grid: BevGrid = field(default_factory=lambda: BevGrid.centered(51.2, 0.8))
    depth_bins: DepthBins = field(default_factory=lambda: DepthBins(1.0, 60.0, 0.5))
    image_stride: int = 8
    depth_channels: int = 256
    depth_blocks: int = 3
    pooled_context: bool = True
    deformable: bool = True
    context_channels: int = 256
    preprocess_blocks: int = 2
    encoder_channels: tuple[int, ...] = (256, 256, 256)
    encoder_strides: tuple[int, ...] = (1, 2, 2)
    encoder_blocks: tuple[int, ...] = (2, 2, 2)
    rounding: Rounding = "floor"
    corner_aligned: bool = False


@dataclass(frozen=True)
class BevPrediction:
    """features [B, C, Y, X] of the BEV map; depth_logits [B, N, D, H, W] of the lift, for its supervision."""

    features: Tensor
    depth_logits: Tensor


class BevBranch(nn.Module):
    """in_channels of the image features -> out_channels of the BEV map."""

    def __init__(self, config: BevBranchConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.config = config
        self.depth_net = DepthNet(
            in_channels,
            config.depth_channels,
            config.depth_bins.count,
            config.context_channels,
            config.depth_blocks,
            config.pooled_context,
            config.deformable,
        )
        self.encoder = BevEncoder(
            config.context_channels,
            out_channels,
            config.encoder_channels,
            config.encoder_strides,
            config.encoder_blocks,
            config.preprocess_blocks,
        )

    def plan(
        self,
        image_from_working: Tensor,
        camera_mask: Tensor | None,
        image_size: tuple[int, int],
        feature_size: tuple[int, int],
    ) -> BevPoolPlan:
        """Where each frustum point goes; image_from_working [B, N, 4, 4], camera_mask bool [B, N], sizes
        (height, width).
        """
        template = frustum(image_size, feature_size, self.config.depth_bins, self.config.corner_aligned)
        return plan_lift_splat(
            image_from_working, camera_mask, template, self.config.grid, self.config.rounding
        )

    def forward(self, features: Tensor, camera_vector: Tensor, plan: BevPoolPlan) -> BevPrediction:
        """features [B, N, C, H, W] at `image_stride`; camera_vector [B, N, 27]; plan from `plan`."""
        prediction = self.depth_net(features.flatten(0, 1), camera_vector.flatten(0, 1))
        shape = features.shape[:2]
        with torch.autocast(features.device.type, enabled=False):  # sums over thousands of points
            depth = prediction.logits.float().softmax(1).unflatten(0, shape)
            lifted = lift_splat(depth, prediction.context.float().unflatten(0, shape), plan, self.config.grid)
        return BevPrediction(self.encoder(lifted), prediction.logits.unflatten(0, shape))
