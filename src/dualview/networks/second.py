"""SECOND's convolutions on a bird's-eye-view map, and the pyramid behind them (Yan et al. 2018, Sensors 18(10)
3337, as used by PointPillars and CenterPoint).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualview.networks.pillars import NORM_EPSILON, NORM_MOMENTUM


class SecondBackbone(nn.Module):
    """Stages of plain 3x3 convolutions; the first convolution of a stage has its stride.

    layers: further convolutions in each stage; channels, strides: of the stages.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...] = (64, 128, 256),
        layers: tuple[int, ...] = (3, 5, 5),
        strides: tuple[int, ...] = (2, 2, 2),
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for width, count, stride in zip(channels, layers, strides, strict=True):
            steps = [in_channels] + [width] * count
            parts = []
            for index, before in enumerate(steps):
                parts += [
                    nn.Conv2d(before, width, 3, stride if index == 0 else 1, padding=1, bias=False),
                    *_norm(width),
                ]
            self.stages.append(nn.Sequential(*parts))
            in_channels = width

    def forward(self, bev: Tensor) -> list[Tensor]:
        """[B, C, Y, X] -> one map a stage."""
        outputs = []
        for stage in self.stages:
            bev = stage(bev)
            outputs.append(bev)
        return outputs


class SecondPyramid(nn.Module):
    """Maps of several strides brought to one size and laid side by side (`SECONDFPN`).

    factors: by how much each map is enlarged (2 = twice as many cells along an edge, 0.5 = half as many).
    """

    def __init__(
        self, in_channels: Sequence[int], channels: Sequence[int], factors: Sequence[float] = (0.5, 1, 2)
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(_resampling(before, width, factor), *_norm(width))
            for before, width, factor in zip(in_channels, channels, factors, strict=True)
        )
        self.out_channels = sum(channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """One map a level -> [B, sum of channels, Y, X]."""
        return torch.cat([level(bev) for level, bev in zip(self.levels, maps, strict=True)], 1)


def _resampling(in_channels: int, channels: int, factor: float) -> nn.Module:
    if factor > 1:
        return nn.ConvTranspose2d(in_channels, channels, round(factor), round(factor), bias=False)
    stride = round(1 / factor)
    return nn.Conv2d(in_channels, channels, stride, stride, bias=False)


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels, NORM_EPSILON, NORM_MOMENTUM), nn.ReLU(inplace=True)
