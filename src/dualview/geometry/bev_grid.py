"""The bird's-eye-view grid: where a cell lies in the ego frame.

BEV tensors are [..., Y, X]: row i is y = y_min + (i + 0.5) * resolution, column j is x = x_min + (j + 0.5) * resolution. Row
0 is therefore the vehicle's far right; drawings flip.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Between which heights (m, ego frame) LiDAR returns count: -5 to 3 about nuScenes' LiDAR, where CenterPoint and
# DualViewDistill have them, which is 1.8 m above the road. In the ego frame itself that would cut off the tops of trucks.
POINT_HEIGHTS = (-3.2, 4.8)


@dataclass(frozen=True)
class BevGrid:
    """A rectangular grid on the ground plane: lower corner (m), cell edge (m), number of columns and rows."""

    x_min: float
    y_min: float
    resolution: float
    columns: int  # X
    rows: int  # Y
    z_min: float = -5.0
    z_max: float = 3.0

    def __post_init__(self) -> None:
        if self.resolution <= 0 or self.columns < 1 or self.rows < 1 or self.z_max <= self.z_min:
            raise ValueError(f"{self} is not a grid: resolution and cell counts must be positive and z_max above z_min")

    @staticmethod
    def centered(half_range: float, resolution: float, z_min: float = -5.0, z_max: float = 3.0) -> BevGrid:
        """A square grid of +-half_range (m) around the ego origin."""
        cells = round(2 * half_range / resolution)
        return BevGrid(-half_range, -half_range, resolution, cells, cells, z_min, z_max)

    @property
    def x_max(self) -> float:
        return self.x_min + self.columns * self.resolution

    @property
    def y_max(self) -> float:
        return self.y_min + self.rows * self.resolution

    def same_cells(self, other: BevGrid) -> bool:
        """Whether both have the same cells on the ground, whatever height they take in."""
        return replace(self, z_min=other.z_min, z_max=other.z_max) == other

    def normalized(self, points: Tensor) -> Tensor:
        """Sampling locations in 0..1 of points [..., >=2] (m, ego): (x, y) fractions of the grid's extent.

        `grid_sample(2 * location - 1, align_corners=False)` then reads the cell centres exactly.
        """
        origin = points.new_tensor([self.x_min, self.y_min])
        extent = points.new_tensor([self.columns * self.resolution, self.rows * self.resolution])
        return (points[..., :2] - origin) / extent

    def cell_centers(self) -> Tensor:
        """Centres [Y, X, 2] (x, y in m) of all cells."""
        x = self.x_min + (torch.arange(self.columns) + 0.5) * self.resolution
        y = self.y_min + (torch.arange(self.rows) + 0.5) * self.resolution
        return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
