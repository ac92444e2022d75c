"""Rigid transforms as 4x4 matrices, named `target_from_source`: they take source points and give target points."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor


def invert_rigid(transform: Tensor) -> Tensor:
    """Inverse of rigid transforms, [..., 4, 4] -> [..., 4, 4], exact in structure (no general matrix inverse)."""
    rotation = transform[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(transform)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ transform[..., :3, 3:]).squeeze(-1)
    inverse[..., 3, 3] = 1.0
    return inverse


def transform_points(target_from_source: Tensor, points: Tensor) -> Tensor:
    """Move points [..., P, 3] (m, source frame) by [..., 4, 4] to the target frame, [..., P, 3]."""
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., :3, 3]
    return points @ rotation.transpose(-1, -2) + translation.unsqueeze(-2)


def rigid_from_quaternion(translation: np.ndarray, quaternion_xyzw: np.ndarray) -> np.ndarray:
    """4x4 float64 transform from a translation [3] (m) and a quaternion [4] in ROS order (x, y, z, w).

    Raises ValueError if a number is not finite or the quaternion has no length.
    """
    translation = np.asarray(translation, dtype=np.float64)
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    norm = np.linalg.norm(quaternion)
    if not (np.isfinite(translation).all() and np.isfinite(quaternion).all()) or norm < 1e-6:
        raise ValueError(
            f"a transform has translation {translation.tolist()} and quaternion {quaternion.tolist()}; "
            "they must be finite and the quaternion non-zero: check the publisher of this transform"
        )
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_quat(quaternion / norm).as_matrix()
    transform[:3, 3] = translation
    return transform


def quaternion_from_rigid(transform: np.ndarray) -> np.ndarray:
    """Quaternion [4] in ROS order (x, y, z, w), w >= 0, of a 4x4 transform."""
    return Rotation.from_matrix(np.asarray(transform)[:3, :3]).as_quat(canonical=True)


def interpolate_rigid(before: np.ndarray, after: np.ndarray, fraction: float) -> np.ndarray:
    """Transform between two 4x4 float64 transforms: linear in translation, spherical (slerp) in rotation.

    `fraction` 0 gives `before`, 1 gives `after`.
    """
    if fraction <= 0.0:
        return before.copy()
    if fraction >= 1.0:
        return after.copy()
    between = np.eye(4)
    pair = Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]]))
    between[:3, :3] = Slerp([0.0, 1.0], pair)(fraction).as_matrix()
    between[:3, 3] = (1.0 - fraction) * before[:3, 3] + fraction * after[:3, 3]
    return between


def yaw_of(transform: Tensor) -> Tensor:
    """Heading [...] (rad, counter-clockwise about +z) of the x axis of transforms [..., 4, 4]."""
    return torch.atan2(transform[..., 1, 0], transform[..., 0, 0])


def wrap_angle(angle: Tensor) -> Tensor:
    """The same angles in [-pi, pi)."""
    return torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
