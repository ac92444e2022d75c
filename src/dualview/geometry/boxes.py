"""3D boxes: the one convention of the house.

A box has its centre (gravity centre, m), its size as (length, width, height) along its own x, y, z axes (m), its
heading `yaw` about +z (rad, counter-clockwise, 0 = length along +x), and its velocity over ground (m/s) along the
axes of the frame it is given in. The frame itself is named by whoever holds the boxes (ego at the anchor stamp for
what a detector returns, world for annotations). nuScenes' (width, length, height) and quaternions are translated by the
converters and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from dualview.geometry.rigid import transform_points, wrap_angle


@dataclass(frozen=True)
class Boxes3D:
    """M boxes in one frame.

    center [M, 3] m; size [M, 3] (length, width, height) m; yaw [M] rad; velocity [M, 3] m/s, NaN where unknown;
    label [M] int64 index into the class list at hand; score [M] in 0..1 (1 for annotations);
    track_id [M] int64, -1 = no identity.
    """

    center: Tensor
    size: Tensor
    yaw: Tensor
    velocity: Tensor
    label: Tensor
    score: Tensor
    track_id: Tensor

    def __post_init__(self) -> None:
        count = self.center.shape[0]
        for name, width in (("center", 3), ("size", 3), ("velocity", 3)):
            if tuple(getattr(self, name).shape) != (count, width):
                raise ValueError(f"Boxes3D.{name} must be [{count}, {width}], got {list(getattr(self, name).shape)}")
        for name in ("yaw", "label", "score", "track_id"):
            if tuple(getattr(self, name).shape) != (count,):
                raise ValueError(f"Boxes3D.{name} must be [{count}], got {list(getattr(self, name).shape)}")

    def __len__(self) -> int:
        return int(self.center.shape[0])

    def __getitem__(self, index: Tensor | slice) -> Boxes3D:
        """The boxes that a mask, an index tensor or a slice picks."""
        return Boxes3D(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @staticmethod
    def empty() -> Boxes3D:
        """No boxes."""
        return Boxes3D(
            torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(0, 3),
            torch.zeros(0, dtype=torch.int64), torch.zeros(0), torch.zeros(0, dtype=torch.int64),
        )  # fmt: skip

    def to(self, device: torch.device | str) -> Boxes3D:
        """The same boxes on another device."""
        return Boxes3D(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def transformed(self, target_from_source: Tensor) -> Boxes3D:
        """The same boxes seen from another frame; `target_from_source` [4, 4], rigid.

        The heading is the rotated heading vector laid into the xy plane, so a small tilt between the frames costs
        nothing but the tilt itself. Computed in float64 (world coordinates are large), returned in the boxes' dtype.
        """
        matrix = target_from_source.to(self.center.device, torch.float64)
        rotation = matrix[:3, :3]
        heading = torch.stack([self.yaw.cos(), self.yaw.sin(), torch.zeros_like(self.yaw)], -1).double()
        heading = heading @ rotation.T
        return replace(
            self,
            center=transform_points(matrix, self.center.double()).to(self.center.dtype),
            yaw=torch.atan2(heading[:, 1], heading[:, 0]).to(self.yaw.dtype),
            velocity=(self.velocity.double() @ rotation.T).to(self.velocity.dtype),
        )

    def corners(self) -> Tensor:
        """Corners [M, 8, 3] (m): index bits are (x, y, z), 0 = minus half, 1 = plus half of the own axis."""
        signs = torch.tensor([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], device=self.center.device)
        local = (signs.to(self.size.dtype) - 0.5) * self.size.unsqueeze(1)  # [M, 8, 3]
        cos, sin = self.yaw.cos().unsqueeze(1), self.yaw.sin().unsqueeze(1)
        x = local[..., 0] * cos - local[..., 1] * sin
        y = local[..., 0] * sin + local[..., 1] * cos
        return torch.stack([x, y, local[..., 2]], -1) + self.center.unsqueeze(1)

    def contains(self, points: Tensor) -> Tensor:
        """Which points [P, 3] (m, the boxes' frame) lie in which box: bool [M, P]."""
        offset = points.unsqueeze(0) - self.center.unsqueeze(1)  # [M, P, 3]
        cos, sin = self.yaw.cos().unsqueeze(1), self.yaw.sin().unsqueeze(1)
        x = offset[..., 0] * cos + offset[..., 1] * sin
        y = -offset[..., 0] * sin + offset[..., 1] * cos
        local = torch.stack([x, y, offset[..., 2]], -1)
        return (local.abs() <= self.size.unsqueeze(1) / 2).all(-1)


def yaw_difference(first: Tensor, second: Tensor) -> Tensor:
    """Smallest signed angle that turns `second` into `first`, rad in [-pi, pi)."""
    return wrap_angle(first - second)


def concatenate_boxes(parts: list[Boxes3D]) -> Boxes3D:
    """All boxes of `parts`, in order."""
    if not parts:
        return Boxes3D.empty()
    return Boxes3D(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Boxes3D)})
