"""Edges and faces of 3D boxes in an image, cut at the camera's plane so that near boxes keep their shape."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dualview.geometry.boxes import Boxes3D

NEAR = 0.2  # m; what is nearer to the camera's plane is cut off
EDGES = ((0, 1), (2, 3), (4, 5), (6, 7), (0, 2), (1, 3), (4, 6), (5, 7), (0, 4), (1, 5), (2, 6), (3, 7))
FRONT_FACE = (1, 3, 7, 5)  # the corners with x = plus half (see Boxes3D.corners), in order around the face


def homogeneous_corners(boxes: Boxes3D, image_from_ego: Tensor) -> np.ndarray:
    """Corners of boxes (ego frame) as (u z, v z, z), float64 [M, 8, 3]; `image_from_ego` [4, 4] as SurroundFrame gives it."""
    corners = boxes.corners().double()
    ones = torch.ones_like(corners[..., :1])
    return (torch.cat([corners, ones], -1) @ image_from_ego.double().T)[..., :3].numpy()


def visible_edges(corners: np.ndarray, near: float = NEAR) -> tuple[np.ndarray, np.ndarray]:
    """The twelve edges of each box in pixels [M, 12, 2, 2] (both ends, u and v), and which of them can be seen, bool [M, 12].

    An edge that crosses the plane z = `near` (m) is cut there; one behind it is not seen. Pixels may lie outside the image.
    """
    ends = corners[:, EDGES]  # [M, 12, 2, 3]
    depth = ends[..., 2]
    ahead = depth >= near
    step = depth[..., 1] - depth[..., 0]
    share = np.clip((near - depth[..., 0]) / np.where(np.abs(step) < 1e-12, 1.0, step), 0.0, 1.0)[..., None]
    cut = ends[..., 0, :] + share * (ends[..., 1, :] - ends[..., 0, :])
    clipped = np.where(ahead[..., None], ends, cut[..., None, :])
    return clipped[..., :2] / np.maximum(clipped[..., 2:], 1e-9), np.asarray(ahead.any(-1))


def visible_face(corners: np.ndarray, face: tuple[int, ...] = FRONT_FACE, near: float = NEAR) -> np.ndarray:
    """The polygon [K, 2] (pixels) of one face of one box (`corners` [8, 3]), cut at z = `near`; K = 0 if it is behind the camera."""
    polygon = []
    for start, end in zip(corners[list(face)], corners[[*face[1:], face[0]]], strict=True):
        if start[2] >= near:
            polygon.append(start)
        if (start[2] >= near) != (end[2] >= near):
            polygon.append(start + (near - start[2]) / (end[2] - start[2]) * (end - start))
    points = np.array(polygon).reshape(-1, 3)
    return points[:, :2] / np.maximum(points[:, 2:], near / 2)  # cutting may round a little


def shows(edges: np.ndarray, seen: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Which boxes reach into an image of (height, width), bool [M]: by the bounding rectangle of their visible edges."""
    height, width = image_size
    points = np.where(seen[..., None, None], edges, np.nan).reshape(len(edges), 24, 2)
    inside = np.zeros(len(edges), bool)
    some = seen.any(-1)
    if not some.any():
        return inside
    low, high = np.nanmin(points[some], 1), np.nanmax(points[some], 1)
    inside[some] = (low[:, 0] < width) & (low[:, 1] < height) & (high[:, 0] > 0) & (high[:, 1] > 0)
    return inside
