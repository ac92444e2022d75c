"""From clouds to BEV map as CenterPoint does it: pillars or voxels, SECOND, and its pyramid (Yin et al. 2021, arXiv
2006.11275).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
from dualview.networks.pillars import PillarEncoder, VoxelGrid
from dualview.networks.second import SecondBackbone, SecondPyramid
from dualview.networks.voxels import VOXEL_STRIDE, VoxelEncoder


@dataclass(frozen=True)
class LidarBranchConfig:
    """grid: of the BEV map. encoder "pillars": columns of `voxel` (x, y m), the whole height each; "voxels": sparse
    3D convolutions on voxels of `voxel` x `voxel` x `voxel_height` m. max_points in each, max_voxels (training,
    evaluation) a sample. features: channels of the pillars' layers, or of the four stages of voxels. channels, layers,
    strides: of SECOND; pyramid_channels: of each of its levels.
    """

    grid: BevGrid = field(default_factory=lambda: BevGrid.centered(51.2, 0.8, *POINT_HEIGHTS))
    encoder: Literal["pillars", "voxels"] = "pillars"
    voxel: float = 0.2
    voxel_height: float = 0.2
    max_points: int = 20
    max_voxels: tuple[int, int] = (30000, 40000)
    features: tuple[int, ...] = (64,)
    channels: tuple[int, ...] = (64, 128, 256)
    layers: tuple[int, ...] = (3, 5, 5)
    strides: tuple[int, ...] = (2, 2, 2)
    pyramid_channels: tuple[int, ...] = (128, 128, 128)

    def __post_init__(self) -> None:
        if not self.channels or not len(self.channels) == len(self.layers) == len(self.strides) == len(self.pyramid_channels):
            raise ValueError("channels, layers, strides and pyramid_channels must be of the same length, one at least")
        lengths = {"voxel": self.voxel, "voxel_height": self.voxel_height}
        counts = {
            "max_points": (self.max_points,), "max_voxels": self.max_voxels, "features": self.features, "channels": self.channels,
            "strides": self.strides, "pyramid_channels": self.pyramid_channels,
        }  # fmt: skip
        wrong = [name for name, length in lengths.items() if not length > 0]
        wrong += ["layers"] if min(self.layers) < 0 else []
        wrong += [name for name, numbers in counts.items() if not numbers or min(numbers) < 1]
        if wrong:
            raise ValueError(f"{wrong[0]} must be {'0 or more' if wrong[0] == 'layers' else 'positive'}, got {getattr(self, wrong[0])}")
        factor = self.grid.resolution / self.voxel
        if abs(factor - round(factor)) > 1e-6 or round(factor) < 1:
            raise ValueError(
                f"grid.resolution {self.grid.resolution} must be a multiple of voxel {self.voxel}"
            )
        stride = VOXEL_STRIDE if self.encoder == "voxels" else 1
        if round(factor) % stride:
            raise ValueError(f"with voxels, grid.resolution must be a multiple of {stride} voxel edges")
        if self.encoder == "voxels" and len(self.features) != 4:
            raise ValueError(
                f"features {self.features} of voxels must name four stages, such as (16, 32, 64, 128)"
            )
        for enlarged in self.pyramid_factors:
            if abs(max(enlarged, 1 / enlarged) - round(max(enlarged, 1 / enlarged))) > 1e-6:
                raise ValueError(
                    f"strides {self.strides} make cells that are neither a multiple nor a whole part of the grid's {self.grid.resolution} m"
                )
        last = 1
        for step in self.strides:
            last *= step
        if (
            self.grid.columns * round(factor) // stride % last
            or self.grid.rows * round(factor) // stride % last
        ):
            raise ValueError(
                "the grid's cells, before SECOND, must be a multiple of the product of its strides"
            )

    @property
    def voxel_grid(self) -> VoxelGrid:
        """The grid that points are sorted into."""
        grid, factor = self.grid, round(self.grid.resolution / self.voxel)
        height = grid.z_max - grid.z_min
        layers = max(round(height / self.voxel_height), 1) if self.encoder == "voxels" else 1
        return VoxelGrid(
            (grid.x_min, grid.y_min, grid.z_min),
            (self.voxel, self.voxel, height / layers),
            (grid.columns * factor, grid.rows * factor, layers),
        )

    @property
    def pyramid_factors(self) -> tuple[float, ...]:
        """By how much each level of SECOND is enlarged to reach the map's cells."""
        cells = self.voxel * (VOXEL_STRIDE if self.encoder == "voxels" else 1)
        factors = []
        for stride in self.strides:
            cells *= stride
            factors.append(cells / self.grid.resolution)
        return tuple(factors)


class LidarBranch(nn.Module):
    """Clouds of `in_channels` numbers a point -> BEV map of `out_channels`."""

    def __init__(self, config: LidarBranchConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        if config.encoder == "pillars":
            self.encoder: nn.Module = PillarEncoder(
                config.voxel_grid, in_channels, config.features, config.max_points, config.max_voxels
            )
            width = config.features[-1]
        else:
            self.encoder = VoxelEncoder(
                config.voxel_grid, in_channels, config.features, config.max_points, config.max_voxels
            )
            width = self.encoder.out_channels
        self.backbone = SecondBackbone(width, config.channels, config.layers, config.strides)
        self.pyramid = SecondPyramid(config.channels, config.pyramid_channels, config.pyramid_factors)
        self.out_channels = self.pyramid.out_channels

    def forward(self, clouds: Sequence[Tensor]) -> Tensor:
        """B clouds [P, in_channels] (m, the grid's frame) -> [B, out_channels, Y, X]."""
        return self.pyramid(self.backbone(self.encoder(clouds)))
