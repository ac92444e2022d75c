"""LiDAR sweeps beside a stored drive: for LiDAR detectors and teachers, in a drive that cameras alone may have been stored
for long before.

Two more files in the drive's folder: `lidar.npy` (float32 [P, 4]: x, y, z m in the ego frame of the sweep's own stamp,
intensity) and `lidar.npz` (of each sweep: topic, stamp, where its points begin, ego pose). Each sweep is there once; clouds
are joined when a frame is loaded.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.recorded import read_transforms
from dualview.scene.recorded_sweeps import read_sweeps
from dualview.scene.rig import Rig
from dualview.scene.sweeps import EgoSweep, LidarInput, chosen_sweeps, join_sweeps

_POINTS, _TABLE = "lidar.npy", "lidar.npz"


def has_sweeps(folder: Path) -> bool:
    """Whether the sweeps of a drive are stored."""
    return (folder / _TABLE).is_file()


def store_sweeps(recording: Path, rig: Rig, folder: Path) -> int:
    """Write the sweeps of a recording into its drive's folder; returns how many. The table comes last: without it the sweeps
    count as not stored.

    Raises BagError if the recording has no LiDAR that the rig knows of, none whose place is known, or the disk is full.
    """
    with BagReader(recording) as bag:
        sweeps = list(read_sweeps(bag, rig, read_transforms(bag)))
    if not sweeps:
        raise BagError(
            f"{recording} has LiDAR sweeps but no transform that places them: check /tf with `dualview bag check`"
        )
    sweeps.sort(key=lambda s: (s.topic, s.stamp_ns))
    topics = sorted({s.topic for s in sweeps})
    table = {
        "topic": np.array([topics.index(s.topic) for s in sweeps], np.int64),
        "stamps": np.array([s.stamp_ns for s in sweeps], np.int64),
        "starts": np.concatenate([[0], np.cumsum([len(s.points) for s in sweeps])]).astype(np.int64),
        "world_from_ego": np.stack([s.world_from_ego for s in sweeps]),
    }
    written = [folder / f".{name}.{os.getpid()}.partial" for name in (_POINTS, _TABLE)]
    try:
        with written[0].open("wb") as file:
            np.save(file, np.concatenate([s.points for s in sweeps]))
        with written[1].open("wb") as file:
            np.savez(file, **table)  # type: ignore[arg-type]
        for temporary, name in zip(written, (_POINTS, _TABLE), strict=True):
            os.replace(temporary, folder / name)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise BagError(
            f"the LiDAR sweeps of {recording.name} can't be written to {folder}: "
            + ("no room left, make room or set data.cache to another disk" if full else str(error))
        ) from error
    finally:
        for temporary in written:
            temporary.unlink(missing_ok=True)
    return len(sweeps)


class StoredSweeps:
    """The sweeps of one drive; points stay on disk until they are asked for. Raises BagError if they aren't stored."""

    def __init__(self, folder: Path) -> None:
        try:
            with np.load(folder / _TABLE) as table:
                self._topic, self._stamps = table["topic"], table["stamps"]
                self._starts, self._poses = table["starts"], table["world_from_ego"]
            self._points = np.load(folder / _POINTS, mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise BagError(
                f"the LiDAR sweeps of the stored drive {folder} are missing or damaged ({error}): delete {_TABLE} there and "
                "start again"
            ) from error

    def cloud(self, stamp_ns: int, world_from_ego: Tensor, settings: LidarInput) -> Tensor:
        """Cloud float32 [P, 5] of an instant; see `sweeps.join_sweeps`."""
        chosen: list[EgoSweep] = []
        for topic in np.unique(self._topic):
            rows = np.flatnonzero(self._topic == topic)
            for row in rows[chosen_sweeps(self._stamps[rows], stamp_ns, settings)]:
                points = self._points[self._starts[row] : self._starts[row + 1]]
                chosen.append(EgoSweep(str(topic), int(self._stamps[row]), points, self._poses[row]))
        return join_sweeps(chosen, stamp_ns, torch.as_tensor(world_from_ego))
