"""LiDAR returns as the cameras see them: depth supervision without keeping point clouds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from dualview.errors import TransformError
from dualview.geometry.rigid import invert_rigid, transform_points
from dualview.scene.frame import SurroundFrame
from dualview.scene.transform_buffer import TransformBuffer

MIN_DEPTH = 0.1  # m; nearer returns are of the vehicle itself or of nothing
_KEPT_NS = 1_500_000_000


@dataclass(frozen=True)
class Sweep:
    """points float64 [P, 3] in the world frame at `stamp_ns`."""

    topic: str
    stamp_ns: int
    points: np.ndarray


class SweepBuffer:
    """The sweeps of the last second and a half, in the world frame as soon as tf knows where the LiDAR was."""

    def __init__(self, transforms: TransformBuffer, world_frame: str) -> None:
        self._transforms, self._world = transforms, world_frame
        self._waiting: deque[tuple[str, str, int, np.ndarray]] = deque()
        self._sweeps: deque[Sweep] = deque()

    def add(self, topic: str, frame: str, stamp_ns: int, points: np.ndarray) -> None:
        """A sweep [P, >=3] (m) in the LiDAR's own frame."""
        self._waiting.append((topic, frame, stamp_ns, points))
        self.place()

    def place(self) -> None:
        """Move what can be moved into the world frame; forget what is old."""
        newest = self._waiting[-1][2] if self._waiting else 0
        for _ in range(len(self._waiting)):
            topic, frame, stamp, points = self._waiting.popleft()
            try:
                world_from_lidar = self._transforms.lookup(self._world, frame, stamp)
            except TransformError:
                if newest - stamp < _KEPT_NS:
                    self._waiting.append((topic, frame, stamp, points))
                continue
            points = points[np.isfinite(points[:, :3]).all(1), :3].astype(np.float64)
            self._sweeps.append(
                Sweep(topic, stamp, points @ world_from_lidar[:3, :3].T + world_from_lidar[:3, 3])
            )
        while self._sweeps and newest - self._sweeps[0].stamp_ns > _KEPT_NS:
            self._sweeps.popleft()

    def nearest(self, stamp_ns: int, max_distance_ns: int) -> list[Sweep]:
        """Of each topic the sweep that is nearest to an instant, if it is near enough."""
        self.place()
        found: dict[str, Sweep] = {}
        for sweep in self._sweeps:
            distance = abs(sweep.stamp_ns - stamp_ns)
            best = found.get(sweep.topic)
            if distance <= max_distance_ns and (best is None or distance < abs(best.stamp_ns - stamp_ns)):
                found[sweep.topic] = sweep
        return list(found.values())


def project_sweeps(sweeps: list[Sweep], frame: SurroundFrame) -> np.ndarray:
    """Where still world points appear: float32 [P, 4] (camera, u, v px, depth m), every camera at its own
    exposure.

    Each camera's own pose is used, so the vehicle's motion between LiDAR and exposure doesn't shift anything.
    """
    if not sweeps:
        return np.zeros((0, 4), np.float32)
    world = torch.from_numpy(np.concatenate([sweep.points for sweep in sweeps]))
    ego_from_world = invert_rigid(frame.world_from_ego_anchor)
    near = transform_points(ego_from_world, world)
    height, width = frame.image_size
    rows = []
    for camera, matrix in enumerate(frame.image_from_ego_anchor()):
        if not frame.camera_mask[camera]:
            continue
        projected = transform_points(matrix, near)
        depth = projected[:, 2]
        pixel = projected[:, :2] / depth.clamp(min=MIN_DEPTH).unsqueeze(1)
        u, v = pixel.unbind(1)
        seen = (depth >= MIN_DEPTH) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
        rows.append(torch.cat([torch.full_like(pixel[seen, :1], camera), pixel[seen], depth[seen, None]], 1))
    return torch.cat(rows).float().numpy() if rows else np.zeros((0, 4), np.float32)


def depth_maps(
    points: torch.Tensor, augmented_from_original: torch.Tensor, cameras: int, image_size: tuple[int, int]
) -> torch.Tensor:
    """Depth maps float32 [cameras, H, W] (m, 0 = no return) of an augmented image; the nearest return wins.

    points [P, 4] as `project_sweeps` gives them; augmented_from_original [3, 3]: the image augmentation,
    which moves pixels and leaves depth alone.
    """
    height, width = image_size
    matrix = augmented_from_original.float()
    pixel = points[:, 1:3] @ matrix[:2, :2].T + matrix[:2, 2]
    column, row = pixel[:, 0].floor().long(), pixel[:, 1].floor().long()
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height)
    camera, depth = points[inside, 0].long(), points[inside, 3]
    flat = (camera * height + row[inside]) * width + column[inside]
    result = torch.full((cameras * height * width,), float("inf"))
    result.scatter_reduce_(0, flat, depth, "amin")
    return torch.where(result.isinf(), 0.0, result).view(cameras, height, width)
