"""Sparse 3D convolutions over voxels, as SECOND and CenterPoint use them: only where there are points.

Submanifold convolutions (Graham et al. 2018) keep the set of active voxels; strided ones activate each output that any
active input reaches. spconv does this fast where it is installed (`pip install spconv`, or spconv-cu120 for a GPU); the
plain form here computes the same on dense tensors, which is fine for small grids, and serves as the oracle.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dualview.errors import ConfigError
from dualview.networks.pillars import NORM_EPSILON, NORM_MOMENTUM, VoxelGrid, shuffled, voxelize
from dualview.networks.weighted_norm import weighted_norm

VOXEL_STRIDE = 8  # cells of the map per voxel edge
_MOST_DENSE = 2**28  # numbers that the plain form may lay out


@dataclass(frozen=True)
class SparseMap:
    """Active voxels: features [N, C], place int64 [N, 4] (sample, z, y, x); size (Z, Y, X) of the whole, samples B.
    `quick`: spconv's own form of the same, if it is used.
    """

    features: Tensor
    place: Tensor
    size: tuple[int, int, int]
    samples: int
    quick: Any = None

    def dense(self) -> Tensor:
        """[B, C, Z, Y, X], zero where nothing is active. Raises ConfigError where that would be too large."""
        channels = self.features.shape[1]
        numbers = self.samples * channels * math.prod(self.size)
        if numbers > _MOST_DENSE:
            raise ConfigError(
                f"{numbers:.2g} numbers are too many for the plain form of sparse convolutions: install spconv, or take "
                "larger voxels or pillars"
            )
        flat = self.flat_index()
        canvas = self.features.new_zeros(self.samples * math.prod(self.size), channels)
        canvas = canvas.index_put((flat,), self.features)
        return canvas.view(self.samples, *self.size, channels).permute(0, 4, 1, 2, 3)

    def flat_index(self) -> Tensor:
        """int64 [N] into the flattened [B, Z, Y, X]."""
        sample, z, y, x = self.place.unbind(1)
        return ((sample * self.size[0] + z) * self.size[1] + y) * self.size[2] + x


class SparseConvolution(nn.Module):
    """One sparse convolution without bias; weight [out, kz, ky, kx, in], spconv's layout. submanifold: outputs are the
    inputs' voxels.

    key: convolutions with the same key act on the same voxels (spconv then finds neighbours once).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int, int] = (3, 3, 3),
        stride: tuple[int, int, int] = (1, 1, 1),
        padding: tuple[int, int, int] = (1, 1, 1),
        submanifold: bool = False,
        key: str = "",
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.submanifold, self.key = submanifold, key
        self.weight = nn.Parameter(torch.empty(channels, *kernel, in_channels))
        nn.init.kaiming_uniform_(self.weight.view(channels, -1), a=math.sqrt(5))
        self._quick: list[
            Any
        ] = []  # spconv's layer, which borrows the weight; no child, it has none of its own

    def forward(self, voxels: SparseMap) -> SparseMap:
        """The convolved map; quick where the input is."""
        return self._by_spconv(voxels) if voxels.quick is not None else self._plain(voxels)

    def _plain(self, voxels: SparseMap) -> SparseMap:
        dense = voxels.dense()
        weight = self.weight.permute(0, 4, 1, 2, 3)
        output = functional.conv3d(dense, weight, stride=self.stride, padding=self.padding)
        size = (output.shape[2], output.shape[3], output.shape[4])
        place = voxels.place
        if not self.submanifold:
            active = dense.new_zeros(voxels.samples * math.prod(voxels.size))
            active[voxels.flat_index()] = 1.0
            active = active.view(voxels.samples, 1, *voxels.size)
            reached = functional.max_pool3d(
                functional.pad(active, [p for p in reversed(self.padding) for _ in (0, 1)]),
                self.kernel,
                self.stride,
            )
            place = reached[:, 0].nonzero()
        sample, z, y, x = place.unbind(1)
        return SparseMap(output[sample, :, z, y, x], place, size, voxels.samples)

    def _by_spconv(self, voxels: SparseMap) -> SparseMap:
        import spconv.pytorch as spconv

        if not self._quick:
            kind = spconv.SubMConv3d if self.submanifold else spconv.SparseConv3d
            self._quick.append(
                kind(
                    self.weight.shape[-1], len(self.weight), self.kernel, self.stride, self.padding, bias=False,
                    indice_key=self.key or None, algo=None if self.weight.is_cuda else spconv.ConvAlgo.Native,
                )
            )  # fmt: skip
        layer = self._quick[0]
        layer.weight = self.weight
        layer.training = self.training
        output = layer(voxels.quick)
        size = tuple(int(edge) for edge in output.spatial_shape)
        return SparseMap(output.features, output.indices.long(), size, voxels.samples, output)  # type: ignore[arg-type]

    def __deepcopy__(self, memo: dict[int, Any]) -> SparseConvolution:
        copy = SparseConvolution(
            self.weight.shape[-1],
            len(self.weight),
            self.kernel,
            self.stride,
            self.padding,
            self.submanifold,
            self.key,
        )
        copy.weight = nn.Parameter(self.weight.detach().clone(), self.weight.requires_grad)
        memo[id(self)] = copy
        return copy.train(self.training)


class SparseBlock(nn.Module):
    """Convolution, batch norm over the active voxels, ReLU."""

    def __init__(self, *convolution: Any, **named: Any) -> None:
        super().__init__()
        self.convolution = SparseConvolution(*convolution, **named)
        self.norm = nn.BatchNorm1d(len(self.convolution.weight), NORM_EPSILON, NORM_MOMENTUM)

    def forward(self, voxels: SparseMap) -> SparseMap:
        """The block's output."""
        found = self.convolution(voxels)
        return with_features(found, _normed(found.features, self.norm).relu())


class SparseResidualBlock(nn.Module):
    """Two submanifold convolutions with norms, plus the input, ReLU."""

    def __init__(self, channels: int, key: str) -> None:
        super().__init__()
        self.conv1 = SparseConvolution(channels, channels, submanifold=True, key=key)
        self.norm1 = nn.BatchNorm1d(channels, NORM_EPSILON, NORM_MOMENTUM)
        self.conv2 = SparseConvolution(channels, channels, submanifold=True, key=key)
        self.norm2 = nn.BatchNorm1d(channels, NORM_EPSILON, NORM_MOMENTUM)

    def forward(self, voxels: SparseMap) -> SparseMap:
        """The block's output; the voxels stay the same."""
        hidden = self.conv1(voxels)
        hidden = self.conv2(with_features(hidden, _normed(hidden.features, self.norm1).relu()))
        return with_features(hidden, (_normed(hidden.features, self.norm2) + voxels.features).relu())


def _normed(features: Tensor, norm: nn.Module) -> Tensor:
    """A batch norm that a single voxel doesn't stop in training."""
    if not norm.training:
        normed: Tensor = norm(features)
        return normed
    return weighted_norm(features, features.new_ones(len(features)), norm)


def with_features(voxels: SparseMap, features: Tensor) -> SparseMap:
    """The same voxels with other features."""
    quick = None if voxels.quick is None else voxels.quick.replace_feature(features)
    return SparseMap(features, voxels.place, voxels.size, voxels.samples, quick)


class VoxelEncoder(nn.Module):
    """Clouds -> map, by the means of voxels and four stages of sparse convolutions (CenterPoint's `SparseEncoder` with
    residual blocks). The layers of height that are left stand side by side in the channels.

    grid: its rows and columns must be multiples of eight. channels: of the stages, (16, 32, 64, 128) as published.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        in_channels: int,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        max_points: int = 10,
        max_voxels: tuple[int, int] = (90000, 120000),
    ) -> None:
        super().__init__()
        if grid.counts[0] % VOXEL_STRIDE or grid.counts[1] % VOXEL_STRIDE:
            raise ValueError(f"{grid.counts} voxels: rows and columns must be multiples of {VOXEL_STRIDE}")
        self.grid, self.max_points, self.max_voxels = grid, max_points, max_voxels
        # One empty layer on top, as published: 41 layers halve to 21, 11, 5.
        self.size = (grid.counts[2] + 1, grid.counts[1], grid.counts[0])
        first, *later = channels
        self.stem = SparseBlock(in_channels, first, submanifold=True, key="voxels0")
        self.stages = nn.ModuleList()
        width = first
        for index, wider in enumerate((*later, 0)):
            blocks: list[nn.Module] = [SparseResidualBlock(width, f"voxels{index}") for _ in range(2)]
            if wider:
                padding = (0, 1, 1) if index == 2 else (1, 1, 1)
                blocks.append(
                    SparseBlock(width, wider, stride=(2, 2, 2), padding=padding, key=f"down{index}")
                )
                width = wider
            self.stages.append(nn.Sequential(*blocks))
        self.leave = SparseBlock(
            width, width, kernel=(3, 1, 1), stride=(2, 1, 1), padding=(0, 0, 0), key="leave"
        )
        self.layers = _layers_left(self.size[0])
        self.out_channels = width * self.layers

    def forward(self, clouds: Sequence[Tensor]) -> Tensor:
        """B clouds [P, in_channels] (m, the grid's frame) -> [B, out_channels, Y / 8, X / 8]. Shuffles points in training."""
        most = self.max_voxels[0 if self.training else 1]
        voxels = voxelize(shuffled(clouds) if self.training else clouds, self.grid, self.max_points, most)
        rows, columns = self.size[1] // VOXEL_STRIDE, self.size[2] // VOXEL_STRIDE
        mean = voxels.points.sum(1) / voxels.count.unsqueeze(1).to(voxels.points)
        place, empty = voxels.place, not len(voxels.count)
        if empty:
            if not (self.training and torch.distributed.is_available() and torch.distributed.is_initialized()):
                return clouds[0].new_zeros(len(clouds), self.out_channels, rows, columns)
            # The other processes' norms and gradients wait for this one: it takes part with one voxel, of no effect.
            mean, place = mean.new_zeros(1, mean.shape[1]), place.new_zeros(1, 4)
        sparse = _sparse(mean, place, self.size, len(clouds))
        sparse = self.stem(sparse)
        for stage in self.stages:
            sparse = stage(sparse)
        left = self.leave(sparse).dense().flatten(1, 2)
        return left * 0.0 if empty else left


def spconv_is_installed() -> bool:
    """Whether the fast form can be used."""
    return importlib.util.find_spec("spconv") is not None


def _sparse(features: Tensor, place: Tensor, size: tuple[int, int, int], samples: int) -> SparseMap:
    quick = None
    # spconv's gradients exist on GPUs only.
    if spconv_is_installed() and (features.is_cuda or not torch.is_grad_enabled()):
        import spconv.pytorch as spconv

        quick = spconv.SparseConvTensor(features, place.int().contiguous(), list(size), samples)
    return SparseMap(features, place, size, samples, quick)


def _layers_left(layers: int) -> int:
    """Layers of height after three halvings and the last convolution. Raises ValueError if none would be."""
    for padding in (1, 1, 0):
        layers = (layers + 2 * padding - 3) // 2 + 1
    layers = (layers - 3) // 2 + 1
    if layers < 1:
        raise ValueError("too few layers of voxels in height: at least 24, or take pillars")
    return layers
