"""Res2Net's residual stages (Gao et al. 2019) for bird's-eye-view maps, as BEVNeXt's encoder has them.

Inside a block the channels are cut into parts; each part is convolved after the former part's result was added to it,
so that one block sees several ranges at the price of few weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_EXPANSION = 4
_BASE_WIDTH = 32


def normed_convolution(
    in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution that keeps the size (up to the stride), batch norm and, if so asked, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activation else nn.Sequential(*layers)


class Res2Block(nn.Module):
    """1x1 -> `scales` parts, all but the last through a 3x3 each -> 1x1, plus the input, ReLU.

    The first block of a stage (`first`) doesn't add the former part's result, and brings down its last part and its
    shortcut by averaging.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, first: bool = False, scales: int = 4
    ) -> None:
        super().__init__()
        if channels % _EXPANSION or channels // _EXPANSION * _BASE_WIDTH < 64:
            raise ValueError(f"a Res2 block of {channels} channels has empty parts: use a multiple of 8")
        self.first = first
        self.width = channels // _EXPANSION * _BASE_WIDTH // 64
        self.enter = normed_convolution(in_channels, scales * self.width, 1)
        self.parts = nn.ModuleList(
            normed_convolution(self.width, self.width, 3, stride) for _ in range(scales - 1)
        )
        self.last_part = nn.AvgPool2d(3, stride, padding=1) if first and stride != 1 else nn.Identity()
        self.leave = normed_convolution(scales * self.width, channels, 1, activation=False)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                *normed_convolution(in_channels, channels, 1, activation=False),
            )

    def forward(self, features: Tensor) -> Tensor:
        """[M, in_channels, H, W] -> [M, channels, H / stride, W / stride]."""
        *parts, last = self.enter(features).split(self.width, 1)
        outputs: list[Tensor] = []
        for convolution, part in zip(self.parts, parts, strict=True):
            outputs.append(convolution(part if self.first or not outputs else part + outputs[-1]))
        outputs.append(self.last_part(last))
        return functional.relu(self.leave(torch.cat(outputs, 1)) + self.shortcut(features))


class Res2Stages(nn.Module):
    """Stages of Res2 blocks; the first block of a stage has the stride."""

    def __init__(
        self, in_channels: int, channels: tuple[int, ...], strides: tuple[int, ...], blocks: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for width, stride, count in zip(channels, strides, blocks, strict=True):
            first = Res2Block(in_channels, width, stride, first=True)
            self.stages.append(nn.Sequential(first, *(Res2Block(width, width) for _ in range(count - 1))))
            in_channels = width

    def forward(self, bev: Tensor) -> list[Tensor]:
        """[B, C, Y, X] -> one map a stage."""
        outputs = []
        for stage in self.stages:
            bev = stage(bev)
            outputs.append(bev)
        return outputs
