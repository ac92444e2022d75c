"""Depth supervision from LiDAR points that were projected into the images: for the lift, and for dense
depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dualview.networks.lift_splat import DepthBins


@dataclass(frozen=True)
class DepthTarget:
    """bin int64 [..., h, w]: index of the depth bin of each feature pixel, -1 where nothing is known."""

    bin: Tensor

    @property
    def count(self) -> Tensor:
        """Number of feature pixels with a known depth."""
        return (self.bin >= 0).sum()


def depth_target(depth_map: Tensor, stride: int, bins: DepthBins) -> DepthTarget:
    """Nearest return in each stride x stride patch, as a bin (BEVDepth, section 4.1).

    depth_map [..., H, W] m at the network's image size, 0 or less = no return. Depths outside the bins give
    no target.
    """
    *leading, height, width = depth_map.shape
    if height % stride or width % stride:
        raise ValueError(
            f"depth map {height}x{width} can't be cut into patches of {stride}: pad it or choose another "
            "stride"
        )
    patches = depth_map.reshape(-1, height // stride, stride, width // stride, stride)
    patches = torch.where(patches > 0, patches, 1e5)
    nearest = patches.amin((2, 4)).view(*leading, height // stride, width // stride)
    # One step below `start` counts as "before the first bin" so that truncation can't pull such a return into
    # bin 0.
    position = (nearest - (bins.start - bins.step)) / bins.step
    position = torch.where((position >= 0) & (position < bins.count + 1), position, 0.0)
    return DepthTarget(position.long() - 1)


def depth_distribution_loss(probability: Tensor, target: DepthTarget, weight: float = 3.0) -> Tensor:
    """Binary cross entropy between depth distribution [..., D, h, w] and the one-hot bin, summed over bins,
    mean over known pixels.

    Feature pixels without a return don't count. The sum is computed in float32 whatever autocast says.
    """
    known = target.bin >= 0
    probability = probability.float().movedim(-3, -1)[known]  # [K, D]
    one_hot = functional.one_hot(target.bin[known], probability.shape[-1]).to(probability)
    with torch.autocast(probability.device.type, enabled=False):
        loss = functional.binary_cross_entropy(probability, one_hot, reduction="none").sum()
    return weight * loss / target.count.clamp(min=1)


def dense_depth_loss(
    predictions: list[Tensor], depth_maps: list[Tensor], max_depth: float = 60.0, weight: float = 0.2
) -> Tensor:
    """L1 between dense depth and LiDAR depth over all levels (Sparse4D v2's auxiliary loss).

    predictions and depth_maps [..., h_i, w_i] m for each level; depth <= 0 = unknown. Predictions are clipped
    to 0..max_depth. Each level is divided by (its number of known pixels * the number of levels).
    """
    total = predictions[0].new_zeros(())
    for prediction, depth_map in zip(predictions, depth_maps, strict=True):
        known = depth_map > 0
        error = (prediction.clamp(0.0, max_depth)[known] - depth_map[known]).abs().sum()
        total = total + weight * error / (known.sum() * len(predictions)).clamp(min=1)
    return total
