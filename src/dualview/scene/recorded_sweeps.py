"""LiDAR sweeps of a recording, each in the vehicle's frame of its own moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from dualview.errors import BagError, TransformError
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import stamp_ns
from dualview.scene.rig import Rig
from dualview.scene.sweeps import TOLERANCE_NS, EgoSweep, LidarInput, cloud_at
from dualview.scene.transform_buffer import TransformBuffer

_NEAR = 1.0  # m; returns nearer to the LiDAR than this in x and in y are of the vehicle itself


def read_sweeps(bag: BagReader, rig: Rig, transforms: TransformBuffer) -> Iterator[EgoSweep]:
    """All sweeps of the rig's LiDARs in the order of the recording; one whose pose isn't known, or that can't be read, is left
    out.

    transforms: those of the whole recording. Raises BagError if the recording has no LiDAR that the rig knows of, and at its end
    if every sweep was left out, with the reason.
    """
    topics = [topic for topic in rig.lidar_topics if topic in bag.topics]
    if not topics:
        named = ", ".join(rig.lidar_topics) or "none in the rig file"
        raise BagError(
            f"{bag.path} has no LiDAR sweeps (rig '{rig.name}' names {named}): set lidar_topics in the rig file, "
            "or use a detector that needs cameras only"
        )
    read, reason = 0, "the topics are empty"
    for message in bag.messages(topics):
        header = message.message.header
        stamp = stamp_ns(header.stamp)
        try:
            world_from_lidar = transforms.lookup(rig.world_frame, header.frame_id, stamp)
            world_from_ego = transforms.lookup(rig.world_frame, rig.ego_frame, stamp)
            points = points_from_message(message.message)
        except (TransformError, ValueError) as error:
            reason = f"{message.topic}: {error}"
            continue
        read += 1
        ego_from_lidar = np.linalg.inv(world_from_ego) @ world_from_lidar
        yield EgoSweep(message.topic, stamp, in_ego(points, ego_from_lidar), world_from_ego)
    if not read:
        raise BagError(f"none of the LiDAR sweeps of {bag.path} can be used ({reason}): look at it with `dualview bag info`")


def in_ego(points: np.ndarray, ego_from_lidar: np.ndarray) -> np.ndarray:
    """float32 [P, 4] (ego m, intensity) of a raw sweep [P, 4], without returns whose place isn't a number or is
    the vehicle's own. An intensity that isn't a number is 0.
    """
    far = (np.abs(points[:, :2]) >= _NEAR).any(1)
    points = points[far & np.isfinite(points[:, :3]).all(1)]
    moved = points[:, :3].astype(np.float64) @ ego_from_lidar[:3, :3].T + ego_from_lidar[:3, 3]
    intensity = np.nan_to_num(points[:, 3:4], nan=0.0, posinf=0.0, neginf=0.0)
    return np.concatenate([moved, intensity], 1).astype(np.float32)


class CloudWalk:
    """Clouds of rising instants of a recording; each sweep is read once."""

    def __init__(self, sweeps: Iterator[EgoSweep], settings: LidarInput) -> None:
        self._sweeps, self._settings = sweeps, settings
        self._recent: list[EgoSweep] = []
        self._ended = False

    def at(self, stamp: int, world_from_ego: np.ndarray) -> np.ndarray:
        """Cloud float32 [P, 5] of the instant `stamp` (ns), when the ego pose was `world_from_ego` [4, 4]."""
        # Several LiDARs may be recorded a little out of order: read on for another tolerance.
        while not self._ended and (not self._recent or self._recent[-1].stamp_ns <= stamp + 2 * TOLERANCE_NS):
            sweep = next(self._sweeps, None)
            if sweep is None:
                self._ended = True
            else:
                self._recent.append(sweep)
        oldest = stamp - self._settings.max_age * 1e9
        self._recent = [s for s in self._recent if s.stamp_ns >= oldest]
        return cloud_at(self._recent, stamp, torch.from_numpy(world_from_ego), self._settings).numpy()
