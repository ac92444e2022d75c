"""From image features to BEV map as the BEVDet family does it: lift, the previous map beside the present one, encode.

BEVDet (Huang et al. 2021, arXiv 2112.11790), BEVDet4D (Huang & Huang 2022, arXiv 2203.17054) and BEVDepth (Li et
al. 2023, arXiv 2206.10092) differ in two places only: whether the depth network knows the camera, and whether the
previous frame's map comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_branch import BevPrediction
from dualview.networks.bev_encoder import BevEncoder, BevStages
from dualview.networks.bev_history import BevHistory, BevHistoryConfig, chosen_maps, recall_maps, remember_map
from dualview.networks.bevdet_depth_net import BevDetDepthNet
from dualview.networks.depth_net import DepthNet, DepthPrediction
from dualview.networks.lift_splat import DepthBins, Rounding, lift_splat
from dualview.ops.bev_pool import BevPoolPlan


@dataclass(frozen=True)
class BevDetBranchConfig:
    """Sizes; the defaults are BEVDet's with a ResNet-50.

    image_stride: of the image map that is lifted. camera_aware: a depth network of `depth_*` that knows the camera, to be supervised
    by LiDAR; without, one 1x1 convolution that nothing supervises. depth_network "bevdepth": BEVDepth's own, of `pooled_context` and
    `deformable`; "bevdet": the lighter one that TiG-BEV is built on, of `deformable` (`bevdet_depth_net.py`).
    history: which earlier maps are laid beside the present one (None: none, BEVDet). prepare_blocks: residual blocks
    on a moment's own map before that. interval_channel: one more channel tells how many seconds lie between the two
    maps; the published networks know one interval only. out_channels: of the BEV map. rounding, corner_aligned: as
    in `BevBranchConfig`; ("truncate", True) is the published weights' geometry.
    """

    grid: BevGrid = field(default_factory=lambda: BevGrid.centered(51.2, 0.8, -10.0, 10.0))
    depth_bins: DepthBins = field(default_factory=lambda: DepthBins(1.0, 60.0, 1.0))
    image_stride: int = 16
    camera_aware: bool = False
    depth_network: Literal["bevdepth", "bevdet"] = "bevdepth"
    depth_channels: int = 512
    depth_blocks: int = 3
    pooled_context: bool = True
    deformable: bool = True
    context_channels: int = 64
    history: BevHistoryConfig | None = None
    prepare_blocks: int = 0
    interval_channel: bool = False
    encoder_channels: tuple[int, ...] = (128, 256, 512)
    encoder_strides: tuple[int, ...] = (2, 2, 2)
    encoder_blocks: tuple[int, ...] = (2, 2, 2)
    out_channels: int = 256
    rounding: Rounding = "floor"
    corner_aligned: bool = False

    def __post_init__(self) -> None:
        lengths = {len(self.encoder_channels), len(self.encoder_strides), len(self.encoder_blocks)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError(
                f"encoder_channels {self.encoder_channels}, encoder_strides {self.encoder_strides} and encoder_blocks "
                f"{self.encoder_blocks} must name the same stages, one at least"
            )
        grouped = self.camera_aware and self.deformable and self.depth_network == "bevdepth"
        if grouped and self.depth_channels % 4:
            raise ValueError(f"depth_channels {self.depth_channels} must be a multiple of 4 for the deformable convolution")
        if self.interval_channel and self.history is None:
            raise ValueError(
                "interval_channel tells of the interval to an earlier map: set history, or leave it out"
            )

    @property
    def moments(self) -> int:
        """Maps that the encoder sees."""
        return 1 if self.history is None else 1 + self.history.frames


class PlainDepth(nn.Module):
    """Depth distribution and context from one 1x1 convolution (Lift, Splat, Shoot's and BEVDet's)."""

    def __init__(self, in_channels: int, bins: int, context_channels: int) -> None:
        super().__init__()
        self.bins = bins
        self.output = nn.Conv2d(in_channels, bins + context_channels, 1)

    def forward(self, features: Tensor, camera: Tensor) -> DepthPrediction:
        """features [M, in_channels, H, W]; the camera's numbers aren't used."""
        output = self.output(features)
        return DepthPrediction(output[:, : self.bins], output[:, self.bins :])


def _depth_net(config: BevDetBranchConfig, in_channels: int) -> nn.Module:
    bins, channels = config.depth_bins.count, config.context_channels
    if not config.camera_aware:
        return PlainDepth(in_channels, bins, channels)
    sizes = (in_channels, config.depth_channels, bins, channels, config.depth_blocks)
    if config.depth_network == "bevdet":
        return BevDetDepthNet(*sizes, deformable=config.deformable)
    return DepthNet(*sizes, config.pooled_context, config.deformable)


@dataclass(frozen=True)
class BevDetOutput:
    """The map with its depth logits, and the history for the next frame (None without one)."""

    prediction: BevPrediction
    history: BevHistory | None


class BevDetBranch(nn.Module):
    """in_channels of the image features -> `config.out_channels` of the BEV map."""

    def __init__(self, config: BevDetBranchConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        channels = config.context_channels
        self.depth_net = _depth_net(config, in_channels)
        self.prepare = (
            BevStages(channels, (channels,), (1,), (config.prepare_blocks,))
            if config.prepare_blocks
            else None
        )
        self.encoder = BevEncoder(
            config.moments * channels + int(config.interval_channel),
            config.out_channels,
            config.encoder_channels,
            config.encoder_strides,
            config.encoder_blocks,
            preprocess_blocks=0,
        )

    def forward(
        self,
        features: Tensor,
        camera_vector: Tensor,
        plan: BevPoolPlan,
        stamps: Tensor,
        world_from_working: Tensor,
        history: BevHistory | None = None,
    ) -> BevDetOutput:
        """features [B, N, C, H, W] at `image_stride`; camera_vector [B, N, 27]; plan from `plan_lift`; stamps [B] float64
        s; world_from_working [B, 4, 4] float64.
        """
        found = self.depth_net(features.flatten(0, 1), camera_vector.flatten(0, 1))
        shape = features.shape[:2]
        with torch.autocast(features.device.type, enabled=False):  # sums over thousands of points
            depth = found.logits.float().softmax(1).unflatten(0, shape)
            present = lift_splat(depth, found.context.float().unflatten(0, shape), plan, self.config.grid)
        if self.prepare is not None:
            present = self.prepare(present)[-1]
        beside, kept = self._beside(present, stamps, world_from_working, history)
        features = self.encoder(beside)
        return BevDetOutput(BevPrediction(features, found.logits.unflatten(0, shape)), kept)

    def _beside(
        self, present: Tensor, stamps: Tensor, world_from_working: Tensor, history: BevHistory | None
    ) -> tuple[Tensor, BevHistory | None]:
        """The present map with the earlier ones beside it, and the history for the next frame."""
        config = self.config.history
        if config is None:
            return present, None
        grid, corners = self.config.grid, self.config.corner_aligned
        earlier = recall_maps(history, present, stamps, world_from_working, grid, config, corners)
        parts = [present, earlier.flatten(1, 2)]
        if self.config.interval_channel:
            elapsed = elapsed_seconds(history, stamps, config).to(present.dtype)
            parts.append(elapsed.view(-1, 1, 1, 1).expand(-1, 1, *present.shape[-2:]))
        return torch.cat(parts, 1), remember_map(history, present, stamps, world_from_working, config)


def elapsed_seconds(history: BevHistory | None, stamps: Tensor, config: BevHistoryConfig) -> Tensor:
    """Seconds [B] from the map that is laid beside the present one (of several, the first) to now; negative where a drive is
    played backwards, 0 where there is none.
    """
    if history is None:
        return torch.zeros_like(stamps)
    chosen, usable = chosen_maps(history, stamps, config)
    elapsed = stamps.double() - history.stamps.gather(1, chosen[:, :1])[:, 0]
    return torch.where(usable[:, 0], elapsed, 0.0)
