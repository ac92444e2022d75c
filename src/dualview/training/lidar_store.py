"""LiDAR sweeps beside a stored drive: for LiDAR detectors and teachers, in a drive that cameras alone may have been stored
for long before.

Two more files in the drive's folder: `lidar.npy` (float32 [P, 4]: x, y, z m in the ego frame of the sweep's own stamp,
intensity) and `lidar.npz` (of each sweep: topic, stamp, where its points begin, ego pose). Each sweep is there once; clouds
are joined when a frame is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dualview.errors import BagError
from dualview.scene.bag_reader import BagReader
from dualview.scene.recorded import read_transforms
from dualview.scene.recorded_sweeps import read_sweeps
from dualview.scene.rig import Rig
from dualview.scene.sweeps import EgoSweep, LidarInput, chosen_sweeps, join_sweeps
from dualview.training.array_file import GrowingArray, write_error

_POINTS, _TABLE = "lidar.npy", "lidar.npz"


def has_sweeps(folder: Path) -> bool:
    """Whether the sweeps of a drive are stored."""
    return (folder / _TABLE).is_file()


class _Written(NamedTuple):
    """A sweep whose points are on disk: rows start ... start + length of the file that holds all in the recording's order."""

    topic: str
    stamp_ns: int
    start: int
    length: int
    world_from_ego: np.ndarray


def store_sweeps(recording: Path, rig: Rig, folder: Path) -> int:
    """Write the sweeps of a recording into its drive's folder, one at a time; returns how many. The table comes last: without it
    the sweeps count as not stored. Hold the drive's lock meanwhile.

    Raises BagError if the recording has no LiDAR that the rig knows of, or none that can be read and placed, and DiskFullError if there is
    no room.
    """
    written = [folder / f".{name}.{os.getpid()}.partial" for name in (_POINTS, _TABLE)]
    unsorted = folder / f".unsorted.{_POINTS}.{os.getpid()}.partial"
    try:
        sweeps = _write_points(recording, rig, written[0])
        ordered = sorted(sweeps, key=lambda s: (s.topic, s.stamp_ns))
        starts = [s.start for s in ordered]
        if starts != sorted(starts):
            os.replace(written[0], unsorted)
            _copy_points(unsorted, ordered, written[0])
        with written[1].open("wb") as file:
            np.savez(file, **_table(ordered))  # type: ignore[arg-type]
        for temporary, name in zip(written, (_POINTS, _TABLE), strict=True):
            os.replace(temporary, folder / name)
    except OSError as error:
        raise write_error(f"the LiDAR sweeps of {recording.name} can't be written to {folder}", error) from error
    finally:
        for temporary in (*written, unsorted):
            temporary.unlink(missing_ok=True)
    return len(sweeps)


def _write_points(recording: Path, rig: Rig, path: Path) -> list[_Written]:
    sweeps = []
    with BagReader(recording) as bag, GrowingArray(path, (4,), np.float32) as points:
        for sweep in read_sweeps(bag, rig, read_transforms(bag)):
            sweeps.append(
                _Written(sweep.topic, sweep.stamp_ns, len(points), len(sweep.points), sweep.world_from_ego)
            )
            points.append(sweep.points)
    return sweeps


def _copy_points(path: Path, ordered: list[_Written], target: Path) -> None:
    """Points of one sweep after the other, in the table's order: several LiDARs take turns in a recording."""
    stored = np.load(path, mmap_mode="r")
    with GrowingArray(target, (4,), np.float32) as points:
        for sweep in ordered:
            points.append(stored[sweep.start : sweep.start + sweep.length])


def _table(sweeps: list[_Written]) -> dict[str, np.ndarray]:
    topics = sorted({s.topic for s in sweeps})
    return {
        "topic": np.array([topics.index(s.topic) for s in sweeps], np.int64),
        "stamps": np.array([s.stamp_ns for s in sweeps], np.int64),
        "starts": np.concatenate([[0], np.cumsum([s.length for s in sweeps])]).astype(np.int64),
        "world_from_ego": np.stack([s.world_from_ego for s in sweeps]),
    }


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
