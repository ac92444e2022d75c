"""BEV encoder: a small residual network and a two-level pyramid on the bird's-eye-view map (BEVDet: Huang et
al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualview.networks.res2_stages import Res2Stages


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the input, ReLU (He et al. 2016).

    Where the shape changes or `project` asks for it, the shortcut is a plain 3x3 convolution with bias and
    without norm, as in BEVDet's encoder.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        needed = project or stride != 1 or in_channels != channels
        self.shortcut = nn.Conv2d(in_channels, channels, 3, stride, padding=1) if needed else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        """[M, in_channels, H, W] -> [M, channels, H / stride, W / stride]."""
        output = functional.relu(self.bn1(self.conv1(features)))
        return functional.relu(self.bn2(self.conv2(output)) + self.shortcut(features))


class BevStages(nn.Module):
    """Stages of residual blocks; the first block of a stage has the stride and a projected shortcut."""

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], strides: tuple[int, ...], blocks: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for width, stride, count in zip(channels, strides, blocks, strict=True):
            first = ResidualBlock(in_channels, width, stride, project=True)
            self.stages.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(count - 1))))
            in_channels = width

    def forward(self, bev: Tensor) -> list[Tensor]:
        """[B, C, Y, X] -> one map a stage."""
        outputs = []
        for stage in self.stages:
            bev = stage(bev)
            outputs.append(bev)
        return outputs


class BevPyramid(nn.Module):
    """BEVDet's `FPN_LSS`: the coarsest map, enlarged, beside the finest one, and convolutions over both.

    If the finest stage is coarser than the BEV map (`enlarge`), its result is brought back to the map's size
    at the end.
    """

    def __init__(self, in_channels: int, out_channels: int, enlarge: bool) -> None:
        super().__init__()
        width = 2 * out_channels if enlarge else out_channels
        self.fuse = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.refine = (
            nn.Sequential(
                nn.Conv2d(width, out_channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(out_channels, out_channels, 1),
            )
            if enlarge
            else None
        )

    def forward(self, finest: Tensor, coarsest: Tensor, size: tuple[int, int]) -> Tensor:
        """finest [B, C1, Y1, X1], coarsest [B, C2, Y2, X2] -> [B, out_channels, *size]."""
        coarsest = _resize(coarsest, (finest.shape[-2], finest.shape[-1]))
        fused = self.fuse(torch.cat([finest, coarsest], 1))
        return fused if self.refine is None else self.refine(_resize(fused, size))


class BevEncoder(nn.Module):
    """Pre-processing blocks (optional), residual stages and pyramid: [B, C, Y, X] -> [B, out_channels, Y,
    X]. With `res2` the stages are made of Res2 blocks, as BEVNeXt's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: tuple[int, ...] = (256, 256, 256),
        strides: tuple[int, ...] = (1, 2, 2),
        blocks: tuple[int, ...] = (2, 2, 2),
        preprocess_blocks: int = 2,
        res2: bool = False,
    ) -> None:
        super().__init__()
        self.preprocess = (
            BevStages(in_channels, (in_channels,), (1,), (preprocess_blocks,)) if preprocess_blocks else None
        )
        stages = Res2Stages if res2 else BevStages
        self.stages = stages(in_channels, channels, strides, blocks)
        self.pyramid = BevPyramid(channels[0] + channels[-1], out_channels, enlarge=strides[0] != 1)

    def forward(self, bev: Tensor) -> Tensor:
        """BEV map [B, in_channels, Y, X] -> encoded map [B, out_channels, Y, X]."""
        return self.encode(self.prepare(bev))

    def prepare(self, bev: Tensor) -> Tensor:
        """The pre-processing alone, of one moment's map: what comes before several moments are fused."""
        return bev if self.preprocess is None else self.preprocess(bev)[-1]

    def encode(self, bev: Tensor) -> Tensor:
        """The rest: prepared map [B, in_channels, Y, X] -> encoded map [B, out_channels, Y, X]."""
        stages = self.stages(bev)
        return self.pyramid(stages[0], stages[-1], (bev.shape[-2], bev.shape[-1]))


def _resize(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with aligned corners, as BEVDet's weights expect."""
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=True)
