"""Points with features -> a map of the ground plane: mean of the points in a voxel, mean of a column's voxels.

The two-stage mean keeps the dense returns of the road from drowning what stands on it (DualViewDistill, Sec. III-B).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.teachers.feature_cloud import FeatureCloud


@dataclass(frozen=True)
class BevLabel:
    """The cells of a map that hold anything. cells int64 [K]: row * columns + column, rising; features [K, C];
    points float32 [K]: observations behind each.
    """

    cells: Tensor
    features: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.cells)


@dataclass(frozen=True)
class VoxelSums:
    """Sums over the points of occupied voxels. keys int64 [K]: cell * layers + layer; sums float32 [K, C]
    weighted by counts; counts float32 [K].
    """

    keys: Tensor
    sums: Tensor
    counts: Tensor
    layers: int


def sum_voxels(cloud: FeatureCloud, grid: BevGrid, height: float) -> VoxelSums:
    """The points of `cloud` (in the grid's frame) that lie in the grid, by voxels of `height` (m)."""
    layers = max(round((grid.z_max - grid.z_min) / height), 1)
    low = cloud.xyz.new_tensor([grid.x_min, grid.y_min, grid.z_min])
    edge = cloud.xyz.new_tensor([grid.resolution, grid.resolution, (grid.z_max - grid.z_min) / layers])
    index = ((cloud.xyz - low) / edge).floor().long()
    inside = ((index >= 0) & (index < torch.tensor([grid.columns, grid.rows, layers]))).all(1)
    x, y, z = index[inside].unbind(1)
    sums = VoxelSums(
        (y * grid.columns + x) * layers + z,
        cloud.features[inside].float() * cloud.count[inside, None],
        cloud.count[inside],
        layers,
    )
    return join_sums([sums])


def join_sums(parts: Sequence[VoxelSums]) -> VoxelSums:
    """The sums of all `parts` (at least one), each voxel once."""
    keys, place = torch.cat([p.keys for p in parts]).unique(return_inverse=True)
    sums = torch.zeros(len(keys), parts[0].sums.shape[1])
    sums.index_add_(0, place, torch.cat([p.sums for p in parts]))
    counts = torch.zeros(len(keys)).index_add_(0, place, torch.cat([p.counts for p in parts]))
    return VoxelSums(keys, sums, counts, parts[0].layers)


def pool_voxels(voxels: VoxelSums) -> BevLabel:
    """Mean over the occupied voxels of each cell of the voxels' means."""
    cells, place = (voxels.keys // voxels.layers).unique(return_inverse=True)
    features = torch.zeros(len(cells), voxels.sums.shape[1])
    features.index_add_(0, place, voxels.sums / voxels.counts[:, None])
    occupied = torch.zeros(len(cells)).index_add_(0, place, torch.ones(len(place)))
    points = torch.zeros(len(cells)).index_add_(0, place, voxels.counts)
    return BevLabel(cells, features / occupied[:, None], points)


def pool_to_bev(cloud: FeatureCloud, grid: BevGrid, height: float = 0.5) -> BevLabel:
    """The map of a cloud in the grid's frame; height: of the voxels, m."""
    return pool_voxels(sum_voxels(cloud, grid, height))
