"""LiDAR sweeps beside a drive, of recordings of any length."""

import resource
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from small_world import CLASSES, SIZE

from dualview.scene.rig import Rig, load_rig
from dualview.scene.sweeps import EgoSweep, LidarInput, cloud_at
from dualview.training import lidar_store
from dualview.training.array_file import DiskFullError
from dualview.training.bag_index import IndexSettings, index_recordings
from dualview.training.lidar_store import StoredSweeps, store_sweeps

SETTINGS = IndexSettings(SIZE, CLASSES)
STEP_NS = 100_000_000


@pytest.fixture(scope="module")
def rig(small_rig: Path) -> Rig:
    return load_rig(str(small_rig))


def sweep(topic: str, index: int) -> EgoSweep:
    random = np.random.default_rng([index, len(topic)])
    pose = np.eye(4)
    pose[0, 3] = index
    points = random.normal(size=(5 + index % 3, 4)).astype(np.float32)
    return EgoSweep(topic, index * STEP_NS, points, pose)


ONE = [("/top", index) for index in range(30)]
SEVERAL = [(topic, index) for index in (0, 1, 3, 2, *range(4, 30)) for topic in ("/top", "/left")]


@pytest.mark.parametrize("order", [ONE, SEVERAL], ids=["one LiDAR", "two that take turns, out of order"])
def test_sweeps_are_written_as_they_are_read(
    order: list[tuple[str, int]], rig: Rig, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[weakref.ref] = []
    alive: list[int] = []

    def recorded(*_: object) -> Iterator[EgoSweep]:
        for topic, index in order:
            alive.append(sum(one() is not None for one in found))
            made = sweep(topic, index)
            found.append(weakref.ref(made.points))
            yield made

    monkeypatch.setattr(lidar_store, "read_sweeps", recorded)
    assert store_sweeps(drives / "drive0.mcap", rig, tmp_path) == len(order)
    assert max(alive) <= 2  # the one just read, and the one before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lidar.npy", "lidar.npz"]
    stored, settings = StoredSweeps(tmp_path), LidarInput()
    everything = [sweep(topic, index) for topic, index in sorted(order)]
    for index in (0, 3, 29):
        pose = torch.from_numpy(sweep("/top", index).world_from_ego)
        assert torch.equal(
            stored.cloud(index * STEP_NS, pose, settings), cloud_at(everything, index * STEP_NS, pose, settings)
        )


def test_a_full_disk_isnt_taken_for_a_broken_recording(rig: Rig, drives: Path, tmp_path: Path) -> None:
    """With "skip", recordings that can't be read are left out; the sweeps' file can't grow, as on a full disk."""
    paths = [drives / "drive0.mcap", drives / "drive1.mcap"]
    before = index_recordings(paths, rig, SETTINGS, tmp_path)
    said: list[str] = []
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(DiskFullError, match=r"LiDAR sweeps of drive0.* no room left"):
            index_recordings(paths, rig, SETTINGS, tmp_path, "skip", said.append, with_sweeps=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert not said and not any(list(drive.folder.glob("*lidar*")) for drive in before)
    assert not any(list(drive.folder.glob(".*")) for drive in before)
    index_recordings(paths, rig, SETTINGS, tmp_path, "skip", said.append, with_sweeps=True)
    assert len(said) == 2 and all("24 LiDAR sweeps" in line for line in said)
