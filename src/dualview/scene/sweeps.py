"""LiDAR sweeps around an instant, joined into one cloud in the vehicle's frame (CenterPoint's input: the newest
sweep and those before it, each with its age).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualview.errors import TransformError
from dualview.geometry.rigid import invert_rigid, transform_points
from dualview.scene.transform_buffer import TransformBuffer

POINT_CHANNELS = 5  # x, y, z (m), intensity (0..255), age (s)
_TOLERANCE_NS = 55_000_000  # half a turn: a sweep that ends so little after an instant belongs to it
_NEAR = 1.0  # m; returns nearer to the LiDAR than this in x and in y are of the vehicle itself


@dataclass(frozen=True)
class LidarInput:
    """What a detector takes of a LiDAR: at most `sweeps` of each topic, none older than `max_age` (s)."""

    sweeps: int = 10
    max_age: float = 0.5

    def __post_init__(self) -> None:
        if self.sweeps < 1 or self.max_age <= 0:
            raise ValueError(f"{self} must ask for at least one sweep and a positive age")


@dataclass(frozen=True)
class EgoSweep:
    """points float32 [P, 4] (x, y, z m of the ego frame at `stamp_ns`, intensity); world_from_ego float64 [4, 4]
    at that stamp.
    """

    topic: str
    stamp_ns: int
    points: np.ndarray
    world_from_ego: np.ndarray


def chosen_sweeps(stamps: np.ndarray, stamp_ns: int, settings: LidarInput) -> np.ndarray:
    """Indices of the sweeps of one topic (stamps int64, rising) that belong to an instant, the newest first."""
    age = stamp_ns - stamps
    usable = np.flatnonzero((age >= -_TOLERANCE_NS) & (age <= settings.max_age * 1e9))
    return usable[::-1][: settings.sweeps]


def join_sweeps(sweeps: Iterable[EgoSweep], stamp_ns: int, world_from_ego: Tensor) -> Tensor:
    """One cloud float32 [P, 5] (x, y, z m in the ego frame at `stamp_ns`, intensity, age s) in the order of
    `sweeps`; world_from_ego float64 [4, 4] at that instant.

    The vehicle's motion in between is taken out; things that move by themselves leave a trail.
    """
    ego_from_world = invert_rigid(world_from_ego.double())
    parts = []
    for sweep in sweeps:
        matrix = ego_from_world @ torch.from_numpy(sweep.world_from_ego)
        points = torch.from_numpy(np.array(sweep.points, np.float32))
        moved = transform_points(matrix.float(), points[:, :3])
        age = torch.full_like(points[:, :1], (stamp_ns - sweep.stamp_ns) * 1e-9)
        parts.append(torch.cat([moved, points[:, 3:4], age], 1))
    return torch.cat(parts) if parts else torch.zeros(0, POINT_CHANNELS)


class SweepHistory:
    """The last sweeps of a drive, each in the ego frame of its own stamp as soon as tf knows that frame."""

    def __init__(
        self, transforms: TransformBuffer, world_frame: str, ego_frame: str, kept_seconds: float = 1.5
    ) -> None:
        self._transforms, self._world, self._ego = transforms, world_frame, ego_frame
        self._kept_ns = round(kept_seconds * 1e9)
        self._waiting: deque[tuple[str, str, int, np.ndarray]] = deque()
        self._placed: dict[str, list[EgoSweep]] = {}
        self._newest = 0

    def add(self, topic: str, frame: str, stamp_ns: int, points: np.ndarray) -> None:
        """A sweep [P, >= 4] (x, y, z m, intensity) in the LiDAR's own frame."""
        if stamp_ns < self._newest - self._kept_ns:  # time went back: another drive begins
            self._waiting.clear()
            self._placed.clear()
            self._newest = stamp_ns
        self._newest = max(self._newest, stamp_ns)
        self._waiting.append((topic, frame, stamp_ns, points))
        self.take_placed()

    def take_placed(self) -> list[EgoSweep]:
        """Sweeps whose pose has become known since the last call; they are also kept for `cloud`."""
        fresh = []
        for _ in range(len(self._waiting)):
            topic, frame, stamp, points = self._waiting.popleft()
            try:
                world_from_lidar = self._transforms.lookup(self._world, frame, stamp)
                world_from_ego = self._transforms.lookup(self._world, self._ego, stamp)
            except TransformError:
                if self._newest - stamp < self._kept_ns:
                    self._waiting.append((topic, frame, stamp, points))
                continue
            ego_from_lidar = np.linalg.inv(world_from_ego) @ world_from_lidar
            fresh.append(EgoSweep(topic, stamp, _in_ego(points, ego_from_lidar), world_from_ego))
        for sweep in fresh:
            kept = self._placed.setdefault(sweep.topic, [])
            kept.append(sweep)
            kept.sort(key=lambda s: s.stamp_ns)
            while kept and self._newest - kept[0].stamp_ns > self._kept_ns:
                kept.pop(0)
        return fresh

    def cloud(self, stamp_ns: int, world_from_ego: np.ndarray, settings: LidarInput) -> Tensor:
        """The cloud [P, 5] of an instant; empty if no sweep belongs to it."""
        self.take_placed()
        sweeps: list[EgoSweep] = []
        for topic in sorted(self._placed):
            kept = self._placed[topic]
            stamps = np.array([s.stamp_ns for s in kept], np.int64)
            sweeps += [kept[i] for i in chosen_sweeps(stamps, stamp_ns, settings)]
        return join_sweeps(sweeps, stamp_ns, torch.from_numpy(np.asarray(world_from_ego)))


def _in_ego(points: np.ndarray, ego_from_lidar: np.ndarray) -> np.ndarray:
    """float32 [P, 4] of a raw sweep, without returns that aren't numbers or are of the vehicle itself."""
    far = (np.abs(points[:, :2]) >= _NEAR).any(1)
    points = points[far & np.isfinite(points[:, :4]).all(1)]
    moved = points[:, :3].astype(np.float64) @ ego_from_lidar[:3, :3].T + ego_from_lidar[:3, 3]
    return np.concatenate([moved, points[:, 3:4]], 1).astype(np.float32)


def sweeps_of(
    stamps: np.ndarray, starts: np.ndarray, poses: np.ndarray, points: np.ndarray, rows: Sequence[int]
) -> list[EgoSweep]:
    """Sweeps out of flat arrays: stamps [S], starts [S + 1], poses [S, 4, 4], points [P, 4]."""
    return [EgoSweep("", int(stamps[i]), points[starts[i] : starts[i + 1]], poses[i]) for i in rows]
