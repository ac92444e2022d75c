"""Rays on the bird's-eye-view grid: where a camera's depth error moves an object (RayD3D, arXiv 2603.07493,
section 3.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.ray_config import RayConfig

_TURN = 2 * math.pi


@dataclass(frozen=True)
class CameraView:
    """Where cameras look from and to. image_from_working [B, N, 4, 4]: points of the frame of boxes and BEV map
    (m) to (u z, v z, z, 1), with every augmentation. camera_mask bool [B, N]: False = missing. image_size:
    (height, width) px.
    """

    image_from_working: Tensor
    camera_mask: Tensor | None
    image_size: tuple[int, int]

    def present(self) -> Tensor:
        """Cameras with a usable matrix, bool [B, N]."""
        good = self.image_from_working.isfinite().all(-1).all(-1)
        return good if self.camera_mask is None else good & self.camera_mask


@dataclass(frozen=True)
class RayFans:
    """F fans of rays for each of B samples, float64: origin [B, F, 2] m; start [B, F] rad, the first border, and
    width [B, F] rad, counter-clockwise; present bool [B, F].
    """

    origin: Tensor
    start: Tensor
    width: Tensor
    present: Tensor

    @staticmethod
    def full_circle(origin: Tensor) -> RayFans:
        """One fan of all directions from origin [B, 2] m."""
        zeros = torch.zeros_like(origin[:, :1], dtype=torch.float64)
        return RayFans(
            origin.double().unsqueeze(1), zeros, zeros + _TURN, torch.ones_like(zeros, dtype=torch.bool)
        )


@dataclass(frozen=True)
class RayLayout:
    """Cells of R rays of each sample. cells int64 [B, R, L]: flat cell y * X + x in order of radius, each once, 0
    where there is none; valid bool [B, R, L]; nearest int64 [B, Y X]: the ray nearest in angle to each cell.
    """

    cells: Tensor
    valid: Tensor
    nearest: Tensor


def camera_centers(view: CameraView) -> Tensor:
    """Camera centres [B, N, 3] m in the working frame; 0 for missing cameras."""
    matrix = _usable(view)
    return -torch.linalg.solve(matrix[..., :3, :3], matrix[..., :3, 3])


def mean_camera_origin(view: CameraView) -> Tensor:
    """Mean place [B, 2] m of the cameras that are there; the frame's origin if none is."""
    present = view.present().unsqueeze(-1)
    total = torch.where(present, camera_centers(view)[..., :2], 0.0).sum(1)
    return total / present.sum(1).clamp(min=1)


def camera_fans(view: CameraView) -> RayFans:
    """One fan a camera, between the directions of the left and right edges of its image at half height."""
    height, width = view.image_size
    pixels = torch.tensor(
        [[0, height / 2, 1], [width / 2, height / 2, 1], [width, height / 2, 1]], dtype=torch.float64
    )
    matrix = _usable(view)[..., :3, :3]
    # One pixel a column: `solve` would take a stack of vectors for a matrix.
    direction = torch.linalg.solve(matrix, pixels.to(matrix.device).T.expand_as(matrix)).mT
    left, middle, right = torch.atan2(direction[..., 1], direction[..., 0]).unbind(-1)
    # Mirrored images have left and right exchanged: only the distance from the middle matters.
    offsets = torch.stack([_wrap(left - middle), _wrap(right - middle)], -1)
    start, end = offsets.amin(-1).clamp(max=0), offsets.amax(-1).clamp(min=0)
    return RayFans(camera_centers(view)[..., :2], middle + start, end - start, view.present())


def ray_fans(config: RayConfig, batch: int, view: CameraView | None, device: torch.device) -> RayFans:
    """The fans that the configuration asks for. Raises ValueError if cameras are needed and not given."""
    if config.origin == "frame":
        return RayFans.full_circle(torch.zeros(batch, 2, device=device))
    if view is None:
        raise ValueError(
            f'rays from "{config.origin}" need the cameras\' geometry: give a CameraView, or choose origin "frame"'
        )
    return (
        camera_fans(view) if config.origin == "per_camera" else RayFans.full_circle(mean_camera_origin(view))
    )


def ray_layout(fans: RayFans, grid: BevGrid, ray_count: int, ray_step: float = 0.5) -> RayLayout:
    """Cells of `ray_count` rays, shared equally by the fans (rounded up), evenly spread within each.

    Samples every `ray_step` cells from the origin to the farthest border; the cell a sample lies in counts.
    """
    fan_count = fans.start.shape[1]
    each = math.ceil(ray_count / fan_count)
    fraction = (torch.arange(each, device=fans.start.device, dtype=torch.float64) + 0.5) / each
    angle = fans.start.unsqueeze(-1) + fans.width.unsqueeze(-1) * fraction  # [B, F, each]
    lower = fans.origin.new_tensor([grid.x_min, grid.y_min])
    upper = fans.origin.new_tensor([grid.x_max, grid.y_max])
    reach = torch.maximum((fans.origin - lower).abs(), (fans.origin - upper).abs()).norm(dim=-1).max()
    steps = math.ceil(float(reach) / (ray_step * grid.resolution)) + 1
    radius = torch.arange(steps, device=angle.device, dtype=torch.float64) * ray_step * grid.resolution
    place = torch.stack([angle.cos(), angle.sin()], -1)[:, :, :, None] * radius[:, None]  # [B, F, each, K, 2]
    place = (place + fans.origin[:, :, None, None] - lower) / grid.resolution
    column, row = place.floor().long().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < grid.columns) & (row < grid.rows)
    inside &= fans.present[:, :, None, None]
    cells = torch.where(inside, row * grid.columns + column, -1).flatten(1, 2)  # [B, R, K]
    keep = cells >= 0
    # A straight line doesn't come back to a cell that it has left.
    keep[..., 1:] &= cells[..., 1:] != cells[..., :-1]
    longest = max(int(keep.sum(-1).max()), 1)
    order = (~keep).to(torch.uint8).argsort(dim=-1, stable=True)[..., :longest]
    valid = keep.gather(-1, order)
    cells = torch.where(valid, cells.gather(-1, order), 0)
    return RayLayout(cells, valid, _nearest_rays(fans, grid, each))


def _nearest_rays(fans: RayFans, grid: BevGrid, each: int) -> Tensor:
    """Index [B, Y X] of the ray whose direction is nearest to each cell centre's, seen from the ray's origin."""
    centers = grid.cell_centers().to(fans.origin.device, torch.float64).flatten(0, 1)
    offset = centers - fans.origin.unsqueeze(2)  # [B, F, Y X, 2]
    relative = (torch.atan2(offset[..., 1], offset[..., 0]) - fans.start.unsqueeze(-1)).remainder(_TURN)
    width = fans.width.unsqueeze(-1)
    past, before = (relative - width).clamp(min=0), _TURN - relative
    index = (relative / width.clamp(min=1e-12) * each).floor().long().clamp(max=each - 1)
    index = torch.where((relative >= width) & (before < past), 0, index)
    beside = torch.where(relative < width, 0.0, torch.minimum(past, before))
    beside = torch.where(fans.present.unsqueeze(-1), beside, torch.inf)
    fan = beside.argmin(1, keepdim=True)
    return (fan * each + index.gather(1, fan)).squeeze(1)


def _usable(view: CameraView) -> Tensor:
    """Matrices in float64, the identity in place of those of missing cameras."""
    matrix = view.image_from_working.double()
    identity = torch.eye(4, dtype=matrix.dtype, device=matrix.device)
    return torch.where(view.present()[..., None, None], matrix, identity)


def _wrap(angle: Tensor) -> Tensor:
    return (angle + math.pi).remainder(_TURN) - math.pi
