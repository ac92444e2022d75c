"""BEV augmentation: the world turned, scaled and mirrored around the vehicle (BEVDet: Huang et al. 2021,
section 3.3).

With A = scale * flip * rotation (3x3): points p' = A p, velocities v' = A v, sizes s' = scale s, projections
P' = P A^-1, poses W' = A W A^-1. The last form mirrors and scales the world with the vehicle, so that poses
stay rigid and the motion between two frames is A (W_2^-1 W_1) A^-1, whatever is remembered in between. A must
not change while something is remembered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dualview.geometry.boxes import Boxes3D


@dataclass(frozen=True)
class BevAugmentationSettings:
    """rotate: largest angle about z, degrees; scale: range of the factor; flip_x, flip_y: mirror these axes
    half of the time.
    """

    rotate: float = 22.5
    scale: tuple[float, float] = (0.95, 1.05)
    flip_x: bool = True
    flip_y: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be two rising positive factors")
        if self.rotate < 0:
            raise ValueError(f"rotate {self.rotate} must be the largest angle in degrees, not negative")


@dataclass(frozen=True)
class BevAugmentation:
    """matrix [3, 3] float64: A, which takes points of the ego frame to the augmented working frame."""

    matrix: Tensor

    @staticmethod
    def identity() -> BevAugmentation:
        """Nothing changes."""
        return BevAugmentation(torch.eye(3, dtype=torch.float64))

    @staticmethod
    def of(
        rotate: float = 0.0, scale: float = 1.0, flip_x: bool = False, flip_y: bool = False
    ) -> BevAugmentation:
        """Turn by `rotate` (rad, about z), then mirror the axes asked for, then scale."""
        cos, sin = math.cos(rotate), math.sin(rotate)
        turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
        flip = torch.tensor([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0, 1.0], dtype=torch.float64)
        return BevAugmentation(scale * flip.diag() @ turn)

    @property
    def mirrors(self) -> bool:
        """Whether left and right change places (both axes mirrored is half a turn)."""
        return bool(torch.linalg.det(self.matrix) < 0)

    @staticmethod
    def draw(random: np.random.Generator, settings: BevAugmentationSettings) -> BevAugmentation:
        """A random one."""
        angle = math.radians(random.uniform(-settings.rotate, settings.rotate))
        scale, first, second = random.uniform(*settings.scale), random.uniform(), random.uniform()
        return BevAugmentation.of(
            angle, scale, settings.flip_x and first < 0.5, settings.flip_y and second < 0.5
        )

    @property
    def scale(self) -> float:
        """Factor on lengths."""
        return float(self.matrix.det().abs() ** (1 / 3))

    @property
    def homogeneous(self) -> Tensor:
        """A as [4, 4] float64."""
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = self.matrix
        return matrix

    def points(self, points: Tensor) -> Tensor:
        """Ego points or velocities [..., 3] in the working frame."""
        return (points.double() @ self.matrix.T).to(points.dtype)

    def boxes(self, boxes: Boxes3D) -> Boxes3D:
        """Boxes of the ego frame in the working frame."""
        heading = torch.stack([boxes.yaw.cos(), boxes.yaw.sin(), torch.zeros_like(boxes.yaw)], -1)
        heading = self.points(heading)
        return replace(
            boxes,
            center=self.points(boxes.center),
            size=boxes.size * self.scale,
            yaw=torch.atan2(heading[:, 1], heading[:, 0]),
            velocity=self.points(boxes.velocity),
        )

    def projection(self, image_from_ego: Tensor) -> Tensor:
        """image_from_ego [..., 4, 4] -> image_from_working."""
        return image_from_ego.double() @ torch.linalg.inv(self.homogeneous)

    def pose(self, world_from_ego: Tensor) -> Tensor:
        """World poses [..., 4, 4] of the ego frame -> of the working frame, in a world that is changed alike;
        rigid.
        """
        return self.homogeneous @ world_from_ego.double() @ torch.linalg.inv(self.homogeneous)
