"""Lift-splat: image features to a bird's-eye-view map along a predicted depth distribution.

Lift, Splat, Shoot (Philion & Fidler 2020), with the pooling of BEVPoolv2. Geometry is one matrix a camera:
`image_from_ego` [4, 4] takes ego points at the anchor stamp to (u z, v z, z, 1), and holds intrinsics,
extrinsics, the ego motion between the anchor and the camera's own exposure, and any augmentation of image or
BEV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.ops.bev_pool import BevPoolPlan, bev_pool, plan_bev_pool

Rounding = Literal["floor", "truncate"]

_FURTHEST_VOXEL = 1e6  # along an axis; no grid is as large


@dataclass(frozen=True)
class DepthBins:
    """Depth along the optical axis in equal steps (m): bin k is [start + k step, start + (k + 1) step)."""

    start: float
    stop: float
    step: float

    def __post_init__(self) -> None:
        if not (0 < self.start < self.stop and self.step > 0):
            raise ValueError(f"{self} must have 0 < start < stop and a positive step")

    @property
    def count(self) -> int:
        return len(self.edges())

    def edges(self) -> Tensor:
        """Lower edges [D], m."""
        return torch.arange(self.start, self.stop, self.step, dtype=torch.float32)

    def centers(self) -> Tensor:
        """Centres [D], m."""
        return self.edges() + self.step / 2


def frustum(
    image_size: tuple[int, int], feature_size: tuple[int, int], bins: DepthBins, corner_aligned: bool = False
) -> Tensor:
    """Frustum template [D, H, W, 3]: (u px of the image, v px, depth m) of each bin of each feature pixel.

    image_size, feature_size: (height, width). Points sit at the centres of feature pixels and of bins. With
    `corner_aligned` they sit where the BEVDet family puts them: first and last feature pixel on the first and
    last image pixel, and on the lower edge of the bin.
    """
    height, width = feature_size
    if corner_aligned:
        v = torch.linspace(0, image_size[0] - 1, height)
        u = torch.linspace(0, image_size[1] - 1, width)
        depth = bins.edges()
    else:
        v = (torch.arange(height) + 0.5) * (image_size[0] / height)
        u = (torch.arange(width) + 0.5) * (image_size[1] / width)
        depth = bins.centers()
    depth, v, u = torch.meshgrid(depth, v, u, indexing="ij")
    return torch.stack([u, v, depth], -1)


def frustum_in_ego(template: Tensor, image_from_ego: Tensor) -> Tensor:
    """Frustum points in the ego frame, [..., D, H, W, 3] m, of cameras `image_from_ego` [..., 4, 4].

    The matrices are inverted in float64; points are float32.
    """
    ego_from_image = torch.linalg.inv(image_from_ego.double())
    u, v, depth = template.to(image_from_ego.device, torch.float64).flatten(0, 2).unbind(-1)
    pixels = torch.stack([u * depth, v * depth, depth])  # [3, D H W]
    # Points lie along the last axis in memory: the passes over them are several times quicker than over triples.
    points = ego_from_image[..., :3, :3] @ pixels
    points += ego_from_image[..., :3, 3:]
    return points.float().movedim(-2, -1).unflatten(-2, template.shape[:3])


def voxel_index(
    points: Tensor, lower: Tensor, cell: Tensor, size: Tensor, rounding: Rounding = "floor"
) -> Tensor:
    """Flat voxel index int64 [...], (z Y + y) X + x, of points [..., 3] m; -1 outside.

    lower, cell [3] m and size [3]: first corner, edges and number of voxels along x, y, z. "truncate" rounds
    towards zero as the BEVDet family does, so that voxels on the lower border also take what lies up to one
    voxel below the grid; "floor" keeps exactly what is inside.
    """
    position = (points - lower.to(points)) / cell.to(points)
    above = position >= 0 if rounding == "floor" else position > -1
    x, y, z = above.logical_and_(position < size.to(points)).unbind(-1)  # NaN is neither
    inside = x & y & z
    index = position.clamp_(0, _FURTHEST_VOXEL).int()  # whole numbers from far away would overflow
    rows, columns = int(size[1]), int(size[0])
    flat = (index[..., 2].long() * rows + index[..., 1]) * columns + index[..., 0]
    return torch.where(inside, flat, -1)


def plan_lift_splat(
    image_from_ego: Tensor,
    camera_mask: Tensor | None,
    template: Tensor,
    grid: BevGrid,
    rounding: Rounding = "floor",
    z_cells: int = 1,
) -> BevPoolPlan:
    """Where every frustum point of every camera goes: the plan that `lift_splat` takes.

    image_from_ego [B, N, 4, 4]; camera_mask bool [B, N] (False: nothing of this camera is pooled; None: all
    are used); template [D, H, W, 3] from `frustum`. The same plan serves as long as these stay the same.
    """
    points = frustum_in_ego(template, image_from_ego)  # [B, N, D, H, W, 3]
    height = (grid.z_max - grid.z_min) / z_cells
    cell = voxel_index(
        points,
        lower=torch.tensor([grid.x_min, grid.y_min, grid.z_min]),
        cell=torch.tensor([grid.resolution, grid.resolution, height]),
        size=torch.tensor([grid.columns, grid.rows, z_cells]),
        rounding=rounding,
    )
    batch = cell.shape[0]
    voxels = z_cells * grid.rows * grid.columns
    shift = torch.arange(batch, device=cell.device).view(-1, 1, 1, 1, 1) * voxels
    cell = torch.where(cell >= 0, cell + shift, cell)
    if camera_mask is not None:
        cell = torch.where(camera_mask[:, :, None, None, None], cell, -1)
    return plan_bev_pool(cell, batch * voxels)


class LiftConfig(Protocol):
    """Of a branch that lifts: the bins, and how points fall into cells."""

    @property
    def depth_bins(self) -> DepthBins: ...
    @property
    def corner_aligned(self) -> bool: ...
    @property
    def grid(self) -> BevGrid: ...
    @property
    def rounding(self) -> Rounding: ...


def plan_lift(
    config: LiftConfig,
    image_from_working: Tensor,
    camera_mask: Tensor | None,
    image_size: tuple[int, int],
    feature_size: tuple[int, int],
) -> BevPoolPlan:
    """The plan of a branch: image_from_working [B, N, 4, 4], camera_mask bool [B, N], sizes (height, width)."""
    template = frustum(image_size, feature_size, config.depth_bins, config.corner_aligned)
    return plan_lift_splat(image_from_working, camera_mask, template, config.grid, config.rounding)


def lift_splat(depth: Tensor, context: Tensor, plan: BevPoolPlan, grid: BevGrid, z_cells: int = 1) -> Tensor:
    """BEV map [B, z_cells C, Y, X]: each cell is the sum of depth probability * context over the points in
    it.

    depth [B, N, D, H, W] (sums to 1 over D); context [B, N, C, H, W]. Rows are y, columns x (see BevGrid);
    with several z_cells the lowest layer's channels come first.
    """
    pooled = bev_pool(depth, context, plan)  # [B * z_cells * Y * X, C]
    pooled = pooled.view(depth.shape[0], z_cells, grid.rows, grid.columns, -1)
    return pooled.permute(0, 1, 4, 2, 3).flatten(1, 2)
