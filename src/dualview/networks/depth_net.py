"""Camera-aware depth network: depth distribution and context features from an image feature map (BEVDepth: Li
et al. 2023).

Image features alone can't tell metres, since that takes the focal length; so the camera's numbers gate the
feature channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualview.networks.bev_encoder import ResidualBlock
from dualview.networks.weighted_norm import norm_rows
from dualview.ops.deformable_convolution import deformable_convolution

CAMERA_NUMBERS = 27


def camera_vector(
    intrinsics: Tensor,
    ego_from_camera: Tensor,
    image_augmentation: Tensor | None = None,
    bev_augmentation: Tensor | None = None,
) -> Tensor:
    """The 27 numbers [B, N, 27] that tell the depth network about a camera (BEVDepth, section 4.1).

    intrinsics [B, N, 3, 3] px before image augmentation; ego_from_camera [B, N, >=3, 4] m; image_augmentation
    [B, N, 3, 3]: affine map of homogeneous pixels (identity if None); bev_augmentation [B, 3, 3]: linear map
    of ego points (identity if None). Order: fx, fy, cx, cy; image augmentation's upper two rows; BEV
    augmentation's upper 2x2 and its zz; ego_from_camera row by row.
    """
    batch, cameras = intrinsics.shape[:2]
    identity = torch.eye(3, device=intrinsics.device, dtype=intrinsics.dtype)
    if image_augmentation is None:
        image_augmentation = identity.expand(batch, cameras, 3, 3)
    bev_augmentation = identity.expand(batch, 3, 3) if bev_augmentation is None else bev_augmentation
    bev = bev_augmentation.to(intrinsics).unsqueeze(1).expand(batch, cameras, 3, 3)
    numbers = [
        intrinsics[..., 0, 0], intrinsics[..., 1, 1], intrinsics[..., 0, 2], intrinsics[..., 1, 2],
        *image_augmentation.to(intrinsics)[..., :2, :].flatten(-2).unbind(-1),
        bev[..., 0, 0], bev[..., 0, 1], bev[..., 1, 0], bev[..., 1, 1], bev[..., 2, 2],
        *ego_from_camera.to(intrinsics)[..., :3, :4].flatten(-2).unbind(-1),
    ]  # fmt: skip
    return torch.stack(numbers, -1)


class ChannelGate(nn.Module):
    """Squeeze-and-excite with the camera's numbers in place of the image's mean: features *
    sigmoid(f(camera)).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(CAMERA_NUMBERS, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, features: Tensor, camera: Tensor) -> Tensor:
        """features [M, C, H, W], camera [M, 27] -> [M, C, H, W]."""
        return features * self.gate(self.embed(camera)[..., None, None]).sigmoid()


class PooledContext(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2018): four dilations and the image mean, mixed by a 1x1
    convolution.
    """

    def __init__(
        self, channels: int, dilations: tuple[int, ...] = (1, 6, 12, 18), dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False)
                if dilation == 1
                else nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for dilation in dilations
        )
        self.mean = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        mixed = channels * (len(dilations) + 1)
        self.mix = nn.Sequential(
            nn.Conv2d(mixed, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, features: Tensor) -> Tensor:
        """[M, C, H, W] -> [M, C, H, W]."""
        pool, convolution, norm, activation = self.mean
        mean = activation(norm_rows(convolution(pool(features)), norm)).expand(-1, -1, *features.shape[-2:])
        return self.mix(torch.cat([*(branch(features) for branch in self.branches), mean], 1))


class DeformableConvolution(nn.Module):
    """3x3 deformable convolution whose offsets a convolution predicts; zero at the start. modulated: the second version, in which it
    predicts a weight of 0 to 1 for each tap too (a half at the start).
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int = 4, modulated: bool = False) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, 3, 3))
        self.offset = nn.Conv2d(in_channels, 27 if modulated else 18, 3, padding=1)
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """[M, C, H, W] -> [M, C_out, H, W]."""
        predicted = self.offset(features)
        modulation = predicted[:, 18:].sigmoid() if predicted.shape[1] > 18 else None
        return deformable_convolution(
            features, predicted[:, :18], self.weight, padding=1, groups=self.groups, modulation=modulation
        )


@dataclass(frozen=True)
class DepthPrediction:
    """logits [M, D, H, W] of the depth bins (softmax over D gives probabilities); context [M, C, H, W]."""

    logits: Tensor
    context: Tensor

    def probability(self) -> Tensor:
        """Depth distribution [M, D, H, W], sums to 1 over D."""
        return functional.softmax(self.logits, 1)


class DepthNet(nn.Module):
    """Depth distribution and context for the lift, both gated by the camera's numbers.

    in_channels of the image features; mid_channels inside; bins = number of depth bins D; context_channels C.
    blocks: residual blocks of the depth branch (BEVDepth: 3). With `pooled_context` (ASPP) and `deformable`
    (DCN) it is BEVDepth's network; without both, and narrow, it is light enough for a CPU. BEVNeXt has the
    deformable convolution in the context branch instead (`context_deformable`).
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        bins: int,
        context_channels: int,
        blocks: int = 3,
        pooled_context: bool = True,
        deformable: bool = True,
        context_deformable: bool = False,
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, 3, padding=1),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
        )
        self.camera_norm = nn.BatchNorm1d(CAMERA_NUMBERS)
        self.depth_gate = ChannelGate(mid_channels)
        self.context_gate = ChannelGate(mid_channels)
        self.depth_blocks = nn.Sequential(*(ResidualBlock(mid_channels, mid_channels) for _ in range(blocks)))
        self.pooled_context = PooledContext(mid_channels) if pooled_context else nn.Identity()
        self.deformable = DeformableConvolution(mid_channels, mid_channels) if deformable else nn.Identity()
        self.depth_output = nn.Conv2d(mid_channels, bins, 1)
        self.context_output = nn.Conv2d(mid_channels, context_channels, 1)
        self.context_deformable: nn.Module = nn.Identity()
        if context_deformable:
            self.context_deformable = nn.Sequential(
                DeformableConvolution(mid_channels, mid_channels),
                nn.BatchNorm2d(mid_channels),
                nn.ReLU(inplace=True),
            )

    def forward(self, features: Tensor, camera: Tensor) -> DepthPrediction:
        """features [M, in_channels, H, W] of M images, camera [M, 27] from `camera_vector`."""
        features = self.reduce(features)
        # Numbers in the hundreds, of which many are the same in all images: rounded, they would be another camera's.
        with torch.autocast(camera.device.type, enabled=False):
            camera = norm_rows(camera.to(self.camera_norm.weight.dtype), self.camera_norm)
        camera = camera.to(features.dtype)
        context = self.context_output(self.context_deformable(self.context_gate(features, camera)))
        depth = self.depth_blocks(self.depth_gate(features, camera))
        logits = self.depth_output(self.deformable(self.pooled_context(depth)))
        return DepthPrediction(logits, context)
