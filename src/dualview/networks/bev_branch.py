"""The BEV branch: one image feature map a camera -> depth network -> lift-splat -> BEV encoder ->
bird's-eye-view map.

By configuration it is BEVNeXt's (Li et al. 2024), each part alone or all together: the depth distributions
pass a random field, the map is fused with those of earlier moments before it is encoded, and it looks at the
images once more afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_encoder import BevEncoder
from dualview.networks.bev_history import BevHistory, BevHistoryConfig, recall_maps, remember_map
from dualview.networks.conditional_random_field_depth import (
    ConditionalRandomFieldDepth,
    DepthFieldConfig,
    color_affinity,
    patch_colors,
)
from dualview.networks.depth_net import DepthNet
from dualview.networks.ground_depth import ground_features
from dualview.networks.lift_splat import DepthBins, Rounding, lift_splat
from dualview.networks.perspective_refinement import PerspectiveRefinement, PerspectiveRefinementConfig
from dualview.networks.pillar_attention import project_pillars
from dualview.networks.temporal_bev_fusion import Res2Fusion
from dualview.ops.bev_pool import BevPoolPlan


@dataclass(frozen=True)
class BevBranchConfig:
    """Sizes of the BEV branch; the defaults are those of DualViewDistill with a ResNet-50.

    image_stride: stride of the image feature map that is lifted. `rounding` and `corner_aligned` are the
    geometry of BEVDet's published weights ("truncate", True); ours is exact ("floor", False). ground_features: so many
    numbers tell the depth network of each pixel how deep the ground is there (see `ground_depth.py`; 0 = none).

    BEVNeXt's parts, off by default: context_deformable: a deformable convolution before the context features.
    encoder_style: "res2" for stages of Res2 blocks. depth_field: a random field over the depth distributions.
    history: earlier maps that are fused with the present one. refinement: the encoded map attends to the
    images.
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
    ground_features: int = 0
    context_deformable: bool = False
    encoder_style: Literal["residual", "res2"] = "residual"
    depth_field: DepthFieldConfig | None = None
    history: BevHistoryConfig | None = None
    refinement: PerspectiveRefinementConfig | None = None

    def __post_init__(self) -> None:
        if self.ground_features and self.ground_features < 6:
            raise ValueError(f"ground_features {self.ground_features} must be 0 or at least 6")
        if self.refinement is not None and self.context_channels % (2 * self.refinement.heads):
            raise ValueError(
                f"context_channels {self.context_channels} must be a multiple of twice refinement.heads "
                f"{self.refinement.heads}"
            )


@dataclass(frozen=True)
class BevInstant:
    """What there is to know of an instant beside its features; only BEVNeXt's parts and ground features ask for it.

    image_size (height, width) px. colors [B, N, 3, H, W]: the images, RGB 0..255, if a random field asks for them.
    image_from_working [B, N, 4, 4]; camera_mask bool [B, N];
    stamps [B] float64 s; world_from_working [B, 4, 4] float64. history: earlier maps, None if there are none.
    """

    image_size: tuple[int, int]
    colors: Tensor | None
    image_from_working: Tensor
    camera_mask: Tensor
    stamps: Tensor
    world_from_working: Tensor
    history: BevHistory | None = None


@dataclass(frozen=True)
class BevPrediction:
    """features [B, C, Y, X] of the BEV map; depth_logits [B, N, D, H, W] of the lift (after the random field,
    if there is one), for its supervision, None where nothing was lifted; history: what the next instant is fused
    with, None if nothing is.
    """

    features: Tensor
    depth_logits: Tensor | None
    history: BevHistory | None = None


class BevBranch(nn.Module):
    """in_channels of the image features -> out_channels of the BEV map."""

    def __init__(self, config: BevBranchConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.config = config
        self.depth_net = DepthNet(
            in_channels + config.ground_features,
            config.depth_channels,
            config.depth_bins.count,
            config.context_channels,
            config.depth_blocks,
            config.pooled_context,
            config.deformable,
            config.context_deformable,
        )
        self.encoder = BevEncoder(
            config.context_channels,
            out_channels,
            config.encoder_channels,
            config.encoder_strides,
            config.encoder_blocks,
            config.preprocess_blocks,
            config.encoder_style == "res2",
        )
        bins, context = config.depth_bins.count, config.context_channels
        self.depth_field = self.fusion = self.refinement = self.refined_output = None
        if config.depth_field is not None:
            self.depth_field = ConditionalRandomFieldDepth(config.depth_field, bins)
        if config.history is not None:
            past = config.history
            self.fusion = Res2Fusion(context, past.frames + 1, past.scales, past.added)
        if config.refinement is not None:
            self.refinement = PerspectiveRefinement(
                config.refinement, config.grid, out_channels, context, bins
            )
            if context != out_channels:
                self.refined_output = nn.Conv2d(context, out_channels, 1)

    @property
    def needs_instant(self) -> bool:
        """Whether `forward` asks for the instant: some part is on that does."""
        parts = (self.depth_field, self.fusion, self.refinement)
        return any(part is not None for part in parts) or self.config.ground_features > 0

    def forward(
        self, features: Tensor, camera_vector: Tensor, plan: BevPoolPlan, instant: BevInstant | None = None
    ) -> BevPrediction:
        """features [B, N, C, H, W] at `image_stride`; camera_vector [B, N, 27]; plan from `plan_lift`.

        Raises ValueError if a part is on that needs the instant, and `instant` isn't given.
        """
        if self.config.ground_features:
            features = self._with_ground(features, _known(instant))
        prediction = self.depth_net(features.flatten(0, 1), camera_vector.flatten(0, 1))
        logits, context, shape = prediction.logits, prediction.context, features.shape[:2]
        if self.depth_field is not None:
            colors = _known(instant).colors
            assert colors is not None
            colors = patch_colors(colors.flatten(0, 1), self.config.image_stride)
            affinity = color_affinity(colors, self.depth_field.config.color_scale)
            logits = self.depth_field(logits, affinity)
        with torch.autocast(features.device.type, enabled=False):  # sums over thousands of points
            depth = logits.float().softmax(1).unflatten(0, shape)
            lifted = lift_splat(depth, context.float().unflatten(0, shape), plan, self.config.grid)
        bev, history = self.encoder.prepare(lifted), None
        if self.fusion is not None:
            bev, history = self._fused(bev, _known(instant))
        bev = self.encoder.encode(bev)
        if self.refinement is not None:
            bev = self._refined(bev, context.unflatten(0, shape), depth, _known(instant))
        return BevPrediction(bev, logits.unflatten(0, shape), history)

    def _with_ground(self, features: Tensor, instant: BevInstant) -> Tensor:
        """Features [B, N, C, H, W] with those of the ground behind them."""
        height, width = features.shape[-2:]
        matrix, count = instant.image_from_working, self.config.ground_features
        ground = ground_features(matrix, instant.image_size, (height, width), count)
        return torch.cat([features, ground.to(features)], 2)

    def _fused(self, bev: Tensor, instant: BevInstant) -> tuple[Tensor, BevHistory]:
        """The map [B, C, Y, X] with what earlier ones add, and the history for the next instant."""
        settings = self.config.history
        assert settings is not None and self.fusion is not None
        when, where = instant.stamps, instant.world_from_working
        earlier = recall_maps(instant.history, bev, when, where, self.config.grid, settings)
        fused = self.fusion(torch.cat([bev.unsqueeze(1), earlier], 1))
        return fused, remember_map(instant.history, bev, when, where, settings)

    def _refined(self, bev: Tensor, context: Tensor, depth: Tensor, instant: BevInstant) -> Tensor:
        """The encoded map [B, C, Y, X] after it looked at the images; context [B, N, C, H, W], depth [B, N,
        D, H, W].
        """
        settings = self.config.refinement
        assert settings is not None and self.refinement is not None
        views = project_pillars(
            self.config.grid,
            settings.heights,
            instant.image_from_working,
            instant.camera_mask,
            instant.image_size,
        )
        bev = self.refinement(bev, context, depth, views)
        return bev if self.refined_output is None else self.refined_output(bev)


def _known(instant: BevInstant | None) -> BevInstant:
    if instant is None:
        raise ValueError(
            "this BEV branch has ground features, a depth field, a history or a refinement: give it the instant (BevInstant)"
        )
    return instant
