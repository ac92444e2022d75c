"""LiDAR sweeps around an instant, joined into one cloud in the vehicle's frame (CenterPoint's input: the newest
sweep and those before it, each with its age).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dualview.geometry.rigid import invert_rigid, transform_points

POINT_CHANNELS = 5  # x, y, z (m), intensity (0..255), age (s)
# Half a turn at 10 Hz, and a little for jitter: the sweep that ends so soon after an instant may be the one that shows it.
TOLERANCE_NS = 55_000_000


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
    """Indices of the sweeps of one topic (stamps int64, rising) that belong to an instant, the newest first.

    A sweep of the future belongs if it is the nearest of all: whatever the LiDAR's rate, it then ends at most half a turn after
    the instant.
    """
    age = stamp_ns - stamps
    usable = np.flatnonzero((age >= -TOLERANCE_NS) & (age <= settings.max_age * 1e9))
    past, future = usable[age[usable] >= 0], usable[age[usable] < 0]
    if len(future) and (not len(past) or -age[future[0]] <= age[past[-1]]):
        past = np.append(past, future[0])
    return past[::-1][: settings.sweeps]


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
        age = torch.full_like(points[:, :1], (stamp_ns - sweep.stamp_ns) * 1e-9)
        parts.append(torch.cat([moved_cloud(points[:, :4], matrix), age], 1))
    return torch.cat(parts) if parts else torch.zeros(0, POINT_CHANNELS)


def moved_cloud(points: Tensor, target_from_source: Tensor) -> Tensor:
    """A cloud [P, 4 or 5] in another frame; intensity and age stay."""
    return torch.cat([transform_points(target_from_source.to(points), points[:, :3]), points[:, 3:]], 1)


def cloud_at(
    sweeps: Sequence[EgoSweep], stamp_ns: int, world_from_ego: Tensor, settings: LidarInput
) -> Tensor:
    """The cloud [P, 5] of an instant out of `sweeps`, in any order; topic by topic, the newest sweep first. Empty if
    none belongs to it.
    """
    topics = sorted({sweep.topic for sweep in sweeps})
    chosen: list[EgoSweep] = []
    for topic in topics:
        own = sorted((s for s in sweeps if s.topic == topic), key=lambda s: s.stamp_ns)
        stamps = np.array([s.stamp_ns for s in own], np.int64)
        chosen += [own[i] for i in chosen_sweeps(stamps, stamp_ns, settings)]
    return join_sweeps(chosen, stamp_ns, world_from_ego)
