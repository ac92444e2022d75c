"""Point clouds as pillars: points sorted into the columns of a grid, a small network over each column, and the
columns laid out as a bird's-eye-view image (PointPillars: Lang et al. 2019, arXiv 1812.05784, section 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.networks.weighted_norm import weighted_norm

NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.01  # of all batch norms behind point clouds (SECOND, CenterPoint)


@dataclass(frozen=True)
class VoxelGrid:
    """lower (x, y, z) m: first corner; size (x, y, z) m of a voxel; counts (X, Y, Z) of voxels. A pillar is a
    voxel of a grid with Z = 1.
    """

    lower: tuple[float, float, float]
    size: tuple[float, float, float]
    counts: tuple[int, int, int]

    def __post_init__(self) -> None:
        if min(self.size) <= 0 or min(self.counts) < 1:
            raise ValueError(f"{self} is not a grid: sizes and counts must be positive")

    @property
    def upper(self) -> tuple[float, ...]:
        """Last corner (x, y, z), m."""
        return tuple(a + s * n for a, s, n in zip(self.lower, self.size, self.counts, strict=True))


@dataclass(frozen=True)
class Voxels:
    """M voxels that hold points, sample by sample, each in the order in which the points first reach it.

    points [M, K, F]: the first K points of each in order of arrival, zero where there are fewer; count int64
    [M] of those; place int64 [M, 4] (sample, z, y, x).
    """

    points: Tensor
    count: Tensor
    place: Tensor

    @property
    def filled(self) -> Tensor:
        """bool [M, K]: slots that hold a point."""
        slots = torch.arange(self.points.shape[1], device=self.count.device)
        return slots < self.count.unsqueeze(1)


def voxelize(clouds: Sequence[Tensor], grid: VoxelGrid, max_points: int, max_voxels: int) -> Voxels:
    """Sort B clouds [P, F >= 3] (x, y, z m first) into a grid; points outside or not finite are left out.

    First come, first served: a voxel takes its first `max_points` points, a sample its first `max_voxels`
    voxels.
    """
    parts = [_voxelize_one(cloud, grid, max_points, max_voxels) for cloud in clouds]
    place = torch.cat(
        [torch.cat([torch.full_like(p.place[:, :1], b), p.place], 1) for b, p in enumerate(parts)]
    )
    return Voxels(torch.cat([p.points for p in parts]), torch.cat([p.count for p in parts]), place)


def _voxelize_one(points: Tensor, grid: VoxelGrid, max_points: int, max_voxels: int) -> Voxels:
    """One cloud; `place` has no sample column yet."""
    position = (points[:, :3] - points.new_tensor(grid.lower)) / points.new_tensor(grid.size)
    counts = torch.tensor(grid.counts, device=points.device)
    finite = points.isfinite().all(1)
    index = torch.where(finite.unsqueeze(1), position, -1.0).floor().clamp(-1, 1e6).long()
    kept = ((index >= 0) & (index < counts)).all(1).nonzero()[:, 0]
    index, points = index[kept], points[kept]
    flat = (index[:, 2] * counts[1] + index[:, 1]) * counts[0] + index[:, 0]
    cells, voxel = torch.unique(flat, return_inverse=True)
    # Voxels are numbered by their first point, as a loop over the points would number them.
    arrival = torch.arange(len(flat), device=points.device)
    first = torch.full_like(cells, len(flat)).scatter_reduce(0, voxel, arrival, "amin")
    number = torch.empty_like(cells)
    number[first.argsort()] = torch.arange(len(cells), device=points.device)
    voxel = number[voxel]
    # A point's slot is how many points of its voxel came before it.
    by_voxel = voxel.argsort(stable=True)
    begin = torch.bincount(voxel, minlength=len(cells)).cumsum(0).roll(1)
    begin[:1] = 0
    slot = torch.empty_like(voxel)
    slot[by_voxel] = arrival - begin[voxel[by_voxel]]
    room = (slot < max_points) & (voxel < max_voxels)
    number_of_voxels = min(len(cells), max_voxels)
    table = points.new_zeros(number_of_voxels, max_points, points.shape[1])
    table[voxel[room], slot[room]] = points[room]
    count = torch.bincount(voxel[room], minlength=number_of_voxels)
    place = index.new_zeros(number_of_voxels, 3)
    leaders = room & (slot == 0)
    place[voxel[leaders]] = index[leaders].flip(1)
    return Voxels(table, count, place)


def shuffled(clouds: Sequence[Tensor]) -> list[Tensor]:
    """The clouds [P, F] with their points in random order (torch's generator), for training: a crowded voxel then shows some of
    all sweeps, and other points each time. As they are joined, its first points would always be the newest sweep's.
    """
    return [cloud[torch.randperm(len(cloud), device=cloud.device)] for cloud in clouds]


class PillarFeatures(nn.Module):
    """A learned vector for each pillar: every point beside its offsets from the pillar's mean point and from
    its centre, through linear layers, and the highest value of each channel over the pillar's slots.

    channels: of the layers; all but the last give half of theirs a point and half the pillar's maximum. Empty
    slots count as points whose numbers are all zero, in maxima and in batch statistics, as in the published weights. They are all
    alike, so that one row stands for a pillar's empty slots: few slots are filled, and the rows are several times fewer.
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...], grid: VoxelGrid) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.ModuleList()
        width = in_channels + 6
        for index, units in enumerate(channels):
            made = units if index == len(channels) - 1 else units // 2
            layer = nn.ModuleDict(
                {
                    "linear": nn.Linear(width, made, bias=False),
                    "norm": nn.BatchNorm1d(made, NORM_EPSILON, NORM_MOMENTUM),
                }
            )
            self.layers.append(layer)
            width = 2 * made

    def forward(self, voxels: Voxels) -> Tensor:
        """Pillars -> features [M, channels[-1]]."""
        pillars, slots = voxels.points.shape[:2]
        points = decorate(voxels, self.grid)[voxels.filled]
        empty = slots - voxels.count
        some = (empty > 0).nonzero()[:, 0]
        every = torch.arange(pillars, device=points.device)
        pillar = torch.cat([every.repeat_interleave(voxels.count), some])  # of each row
        weight = torch.cat([points.new_ones(len(points)), empty[some].to(points)])  # the slots that it stands for
        features = torch.cat([points, points.new_zeros(len(some), points.shape[1])])
        for index, layer in enumerate(self.layers):
            hidden = layer["linear"](features)  # type: ignore[index]
            hidden = weighted_norm(hidden, weight, layer["norm"]).relu()  # type: ignore[index]
            highest = hidden.new_zeros(pillars, hidden.shape[1]).scatter_reduce(
                0, pillar.unsqueeze(1).expand_as(hidden), hidden, "amax", include_self=False
            )
            if index == len(self.layers) - 1:
                return highest
            features = torch.cat([hidden, highest[pillar]], -1)
        return features


def decorate(voxels: Voxels, grid: VoxelGrid) -> Tensor:
    """Points [M, K, F + 6]: their own numbers, the offset from the mean of their pillar's points (m), and from
    the pillar's centre (m).
    """
    places = voxels.points[..., :3]
    mean = places.sum(1, keepdim=True) / voxels.count.clamp(min=1).view(-1, 1, 1).to(places)
    size = places.new_tensor(grid.size)
    center = voxels.place[:, [3, 2, 1]].to(places) * size + (places.new_tensor(grid.lower) + size / 2)
    return torch.cat([voxels.points, places - mean, places - center.unsqueeze(1)], -1)


def scatter_to_map(features: Tensor, place: Tensor, samples: int, rows: int, columns: int) -> Tensor:
    """Pillar features [M, C] at their cells of a map [samples, C, rows, columns]; empty cells are zero.

    place int64 [M, 4] (sample, z, y, x).
    """
    flat = (place[:, 0] * rows + place[:, 2]) * columns + place[:, 3]
    canvas = features.new_zeros(samples * rows * columns, features.shape[1])
    canvas = canvas.index_put((flat,), features)
    return canvas.view(samples, rows, columns, -1).permute(0, 3, 1, 2).contiguous()


class PillarEncoder(nn.Module):
    """Clouds -> map of pillar features: voxelisation, `PillarFeatures`, and laying out.

    max_points a pillar; max_pillars (training, evaluation) a sample.
    """

    def __init__(
        self,
        grid: VoxelGrid,
        in_channels: int,
        channels: tuple[int, ...] = (64,),
        max_points: int = 20,
        max_pillars: tuple[int, int] = (30000, 40000),
    ) -> None:
        super().__init__()
        if grid.counts[2] != 1:
            raise ValueError(f"pillars reach from floor to ceiling: {grid.counts} must have one voxel in z")
        self.grid, self.max_points, self.max_pillars = grid, max_points, max_pillars
        self.features = PillarFeatures(in_channels, channels, grid)
        self.out_channels = channels[-1]
        self.stride = 1

    def forward(self, clouds: Sequence[Tensor]) -> Tensor:
        """B clouds [P, in_channels] (m, the grid's frame) -> [B, out_channels, Y, X]. Shuffles points in training."""
        most = self.max_pillars[0 if self.training else 1]
        voxels = voxelize(shuffled(clouds) if self.training else clouds, self.grid, self.max_points, most)
        columns, rows, _ = self.grid.counts
        return scatter_to_map(self.features(voxels), voxels.place, len(clouds), rows, columns)
