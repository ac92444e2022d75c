"""Depth distributions that neighbouring pixels of one colour agree on: a conditional random field over the feature map
(BEVNeXt: Li et al. 2024, section 3.1).

The energy of a depth map is what the network says of each pixel plus, for each pair of neighbours, w * affinity of
their colours * distance of their bins. Mean-field iterations (Krähenbühl & Koltun 2011) bring the distributions down
that energy; all of them are differentiable, and w is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_OFFSETS = [
    (y, x) for y in range(3) for x in range(3)
]  # of a 3x3 neighbourhood in its padded map, row by row


@dataclass(frozen=True)
class DepthFieldConfig:
    """iterations of mean field. color_scale: the colour distance (0..255) at which the affinity of two patches has
    fallen to exp(-1/2). weight: the pairwise weight w at the start. tolerance: bins that two neighbours may lie apart
    at no cost.

    The published color_scale is 0.001, at which only patches of the very same mean colour take part, in practice each
    pixel with itself; 40 is a sixth of the range, which is what smoothing inside objects takes.
    """

    iterations: int = 20
    color_scale: float = 40.0
    weight: float = 0.015
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.color_scale <= 0:
            raise ValueError(
                f"a depth field needs iterations >= 1 and color_scale > 0, got {self.iterations} and {self.color_scale}"
            )


def patch_colors(images: Tensor, stride: int) -> Tensor:
    """Mean colour [M, 3, H / stride, W / stride] of each patch of images [M, 3, H, W], RGB 0..255."""
    return functional.avg_pool2d(images.float(), stride)


def color_affinity(colors: Tensor, color_scale: float) -> Tensor:
    """How alike the colours of a pixel and its 3x3 neighbours are: [M, 9, H, W] in 0..1, neighbours row by row.

    colors [M, 3, H, W]. The fifth neighbour is the pixel itself, at 1. Beyond the border lies black.
    """
    height, width = colors.shape[-2:]
    padded = functional.pad(colors, (1, 1, 1, 1))
    difference = torch.stack([padded[..., y : y + height, x : x + width] - colors for y, x in _OFFSETS], 1)
    return (-difference.square().sum(2) / (2 * color_scale**2)).exp()


class ConditionalRandomFieldDepth(nn.Module):
    """Mean-field iterations on depth logits. Nothing is averaged over neighbours, their influences are summed."""

    bin_distance: Tensor

    def __init__(self, config: DepthFieldConfig, bins: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.tensor([config.weight]))
        index = torch.arange(bins, dtype=torch.float32)
        distance = ((index[:, None] - index).abs() - config.tolerance).clamp(min=0)
        self.register_buffer("bin_distance", distance, persistent=False)

    def forward(self, logits: Tensor, affinity: Tensor) -> Tensor:
        """Logits [M, D, H, W] of the distributions after the last iteration: their softmax over D is the depth.

        logits [M, D, H, W] from the network, affinity [M, 9, H, W] from `color_affinity`. Computed in float32 whatever
        autocast says. One iteration: q = softmax(logits - distance @ (w * sum over neighbours of affinity * q)).
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, affinity = logits.float(), affinity.float()
            refined = logits
            for _ in range(self.config.iterations):
                refined = logits - self._disagreement(refined.softmax(1), affinity)
            return refined

    def _disagreement(self, probability: Tensor, affinity: Tensor) -> Tensor:
        """Cost [M, D, H, W] of each bin, given what the neighbours hold likely."""
        height, width = probability.shape[-2:]
        padded = functional.pad(probability, (1, 1, 1, 1))  # beyond the border nobody has an opinion
        message = torch.zeros_like(probability)
        for neighbour, (y, x) in enumerate(_OFFSETS):
            message = message + affinity[:, neighbour, None] * padded[..., y : y + height, x : x + width]
        message = self.weight * message
        return (self.bin_distance @ message.flatten(2)).view_as(probability)
