"""Points with features, merged so that a place which is seen often doesn't take more room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dualview.errors import BagError
from dualview.geometry.rigid import transform_points

_HALF_LIMIT = 65504.0  # largest float16


@dataclass(frozen=True)
class FeatureCloud:
    """xyz float64 [P, 3] (m, the frame is the holder's); features [P, C]; count float32 [P]: how many
    observations a point stands for (it is their mean).
    """

    xyz: Tensor
    features: Tensor
    count: Tensor

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, index: Tensor) -> FeatureCloud:
        """The points that a mask or an index tensor picks."""
        return FeatureCloud(self.xyz[index], self.features[index], self.count[index])

    @staticmethod
    def empty(channels: int) -> FeatureCloud:
        """No points."""
        return FeatureCloud(torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, channels), torch.zeros(0))

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.xyz.nbytes + self.features.nbytes + self.count.nbytes

    def moved(self, target_from_source: Tensor) -> FeatureCloud:
        """The cloud in another frame; `target_from_source` float64 [4, 4]."""
        return FeatureCloud(transform_points(target_from_source, self.xyz), self.features, self.count)

    def projected(self, basis: Tensor) -> FeatureCloud:
        """Features times `basis` [C, D]."""
        return FeatureCloud(self.xyz, self.features.float() @ basis, self.count)


def join(clouds: Sequence[FeatureCloud]) -> FeatureCloud:
    """All points of `clouds` (at least one), features in float32."""
    return FeatureCloud(
        torch.cat([c.xyz for c in clouds]),
        torch.cat([c.features.float() for c in clouds]),
        torch.cat([c.count for c in clouds]),
    )


def merge(cloud: FeatureCloud, voxel: float) -> FeatureCloud:
    """One point for each occupied cube of `voxel` (m), the mean of those in it, weighted by their counts.

    Cubes are aligned to whole multiples of `voxel`. The mean stays in its cube, so merging what was merged
    before with new points gives the mean of all.
    """
    if len(cloud) == 0:
        return cloud
    group = group_by_cell((cloud.xyz / voxel).floor().long())
    count = torch.zeros(group.number).index_add_(0, group.index, cloud.count)
    xyz = torch.zeros(group.number, 3, dtype=torch.float64)
    xyz.index_add_(0, group.index, cloud.xyz * cloud.count.double()[:, None])
    features = torch.zeros(group.number, cloud.features.shape[1])
    features.index_add_(0, group.index, cloud.features.float() * cloud.count[:, None])
    return FeatureCloud(xyz / count.double()[:, None], features / count[:, None], count)


@dataclass(frozen=True)
class Groups:
    """index int64 [P]: the group of each row; number of groups, which are in rising order of the cells."""

    index: Tensor
    number: int


def group_by_cell(cells: Tensor) -> Groups:
    """Rows of `cells` int64 [P, D] that are equal form a group."""
    low = cells.amin(0)
    extent = cells.amax(0) - low + 1
    if float(extent.double().prod()) >= 2**62:
        raise ValueError("points lie too far apart to be merged: are there broken coordinates among them?")
    key = torch.zeros(len(cells), dtype=torch.int64)
    for column, size in zip((cells - low).unbind(1), extent.tolist(), strict=True):
        key = key * size + column
    unique, index = key.unique(return_inverse=True)
    return Groups(index, len(unique))


def to_half(features: Tensor) -> Tensor:
    """float16, with what float16 can't hold at its limits."""
    return features.clamp(-_HALF_LIMIT, _HALF_LIMIT).half()


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A .safetensors file that appears only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    whole = {name: value.contiguous() for name, value in tensors.items()}
    partial.write_bytes(save(whole))  # not save_file, whose files only their owner may read
    os.replace(partial, path)


def read_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. Raises BagError if it is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BagError(f"{path} can't be read ({error}): delete it and make the label maps again") from error


def write_cloud(path: Path, cloud: FeatureCloud, half: bool) -> None:
    """Write a cloud; features in float16 if `half`."""
    features = to_half(cloud.features) if half else cloud.features.float()
    write_tensors(path, {"xyz": cloud.xyz, "features": features, "count": cloud.count})


def read_cloud(path: Path) -> FeatureCloud:
    """What `write_cloud` wrote."""
    return FeatureCloud(**read_file(path))
