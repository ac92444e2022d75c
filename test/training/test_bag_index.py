"""Which drive belongs to which rig; several runs at once; drives of any length; sweeps that can't be read."""

import os
import shutil
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import CLASSES, SIZE

from dualview.scene.calibration import CameraCalibration
from dualview.scene.rig import Rig, load_rig
from dualview.training import bag_index
from dualview.training.bag_index import IndexSettings, drive_key, index_recordings
from dualview.training.drive_store import Drive, drive_lock

SETTINGS = IndexSettings(SIZE, CLASSES)


@pytest.fixture(scope="module")
def rig(small_rig: Path) -> Rig:
    return load_rig(str(small_rig))


def with_front(rig: Rig, **changes: object) -> Rig:
    return replace(rig, cameras=(replace(rig.cameras[0], **changes), *rig.cameras[1:]))


MOUNTED = np.eye(4)
CALIBRATION = CameraCalibration(96, 64, np.array([[50.0, 0, 47.5], [0, 50, 31.5], [0, 0, 1]]))
WIDER = replace(CALIBRATION, intrinsics=np.array([[40.0, 0, 47.5], [0, 40, 31.5], [0, 0, 1]]))
CHANGES = {
    "class map": lambda rig: replace(rig, class_map={"van": "car"}),
    "class names": lambda rig: replace(rig, class_names=("car",)),
    "calibration": lambda rig: with_front(rig, calibration=CALIBRATION),
    "another calibration": lambda rig: with_front(rig, calibration=WIDER),
    "mounting": lambda rig: with_front(rig, ego_from_camera=MOUNTED),
    "another mounting": lambda rig: with_front(rig, ego_from_camera=MOUNTED + np.eye(4, k=3)),
    "camera_info": lambda rig: with_front(rig, camera_info_topic="/front/other_info"),
    "image topic": lambda rig: with_front(rig, image_topic="/front/other/compressed"),
    "optical frame": lambda rig: with_front(rig, optical_frame="front_lens"),
    "camera order": lambda rig: replace(rig, cameras=rig.cameras[::-1]),
    "world frame": lambda rig: replace(rig, world_frame="odom"),
    "ego frame": lambda rig: replace(rig, ego_frame="imu"),
    "anchor": lambda rig: replace(rig, anchor="back"),
    "assembler": lambda rig: replace(rig, assembler={"max_skew": 0.02}),
    "lidar": lambda rig: replace(rig, lidar_topics=()),
    "labels": lambda rig: replace(rig, annotations_topic="/other"),
}


def test_a_rig_that_shows_something_else_has_drives_of_its_own(rig: Rig, drives: Path) -> None:
    path = drives / "drive0.mcap"
    keys = {name: drive_key(path, change(rig), SETTINGS) for name, change in CHANGES.items()}
    keys["as it is"] = drive_key(path, rig, SETTINGS)
    same: dict[str, list[str]] = {}
    for name, key in keys.items():
        same.setdefault(key, []).append(name)
    assert not [names for names in same.values() if len(names) > 1]


def test_what_changes_no_frame_changes_no_key(rig: Rig, drives: Path) -> None:
    renamed = replace(rig, name="other", odometry_topic="/other", annotations_2d_topic=None)
    assert drive_key(drives / "drive0.mcap", renamed, SETTINGS) == drive_key(drives / "drive0.mcap", rig, SETTINGS)
    both = [replace(rig, class_map=names) for names in ({"van": "car", "man": "pedestrian"}, {"man": "pedestrian", "van": "car"})]
    assert len({drive_key(drives / "drive0.mcap", one, SETTINGS) for one in both}) == 1


def test_two_runs_build_a_drive_once(rig: Rig, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one is at it, the other waits, and takes it over."""
    path = drives / "drive0.mcap"
    (before,) = index_recordings([path], rig, SETTINGS, tmp_path / "first")
    cache, waits = tmp_path / "second", threading.Event()
    monkeypatch.setattr(bag_index, "build_drive", lambda *_: pytest.fail("built a second time"))

    def tell(line: str) -> None:
        if "another run" in line:
            waits.set()

    with ThreadPoolExecutor(1) as pool:
        with drive_lock(cache / before.folder.name, lambda: None):
            work = pool.submit(index_recordings, [path], rig, SETTINGS, cache, "stop", tell)
            assert waits.wait(60)
            shutil.copytree(before.folder, cache / "copy")
            os.replace(cache / "copy", cache / before.folder.name)
        (after,) = work.result(60)
    assert np.array_equal(after.stamps, before.stamps) and len(Drive(after.folder)) == 24


def test_a_finished_drive_needs_no_lock(rig: Rig, drives: Path, tmp_path: Path) -> None:
    """So a cache that can't be written to can be read."""
    path = drives / "drive0.mcap"
    (before,) = index_recordings([path], rig, SETTINGS, tmp_path)
    shutil.rmtree(tmp_path / ".locks")
    (after,) = index_recordings([path], rig, SETTINGS, tmp_path)
    assert after.folder == before.folder and not (tmp_path / ".locks").exists()


def test_a_folder_that_holds_no_drive_and_a_killed_runs_remains_are_replaced(rig: Rig, drives: Path, tmp_path: Path) -> None:
    path = drives / "drive0.mcap"
    folder = tmp_path / drive_key(path, rig, SETTINGS)
    for remains in (folder, folder.with_name(f".{folder.name}.{os.getpid()}.partial")):
        remains.mkdir()
        (remains / "something").touch()
    (drive,) = index_recordings([path], rig, SETTINGS, tmp_path)
    assert drive.folder == folder and not (folder / "something").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".locks", folder.name]


def test_memory_holds_the_depths_of_no_more_than_a_few_frames(
    rig: Rig, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = bag_index.project_sweeps
    alive: list[int] = []
    found: list[weakref.ref] = []
    counts: list[int] = []

    def counted(*arguments: object) -> np.ndarray:
        alive.append(sum(one() is not None for one in found))
        depth = project(*arguments)
        found.append(weakref.ref(depth))
        counts.append(len(depth))
        return depth

    monkeypatch.setattr(bag_index, "project_sweeps", counted)
    (summary,) = index_recordings([drives / "drive0.mcap"], rig, SETTINGS, tmp_path)
    drive = Drive(summary.folder)
    assert [len(drive.frame(i).depth_points) for i in range(len(drive))] == counts
    assert len(counts) == 24 and max(alive) <= 2
    assert isinstance(np.load(summary.folder / "depth.npy", mmap_mode="r"), np.memmap)


def test_a_malformed_sweep_is_left_out_and_counted(
    rig: Rig, drives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, counts = bag_index.points_from_message, iter(range(100))

    def sometimes(message: Any) -> np.ndarray:
        if next(counts) in (3, 4):
            message.fields[2].offset = message.point_step  # z begins past the point's end
        return read(message)

    monkeypatch.setattr(bag_index, "points_from_message", sometimes)
    said: list[str] = []
    (summary,) = index_recordings([drives / "drive0.mcap"], rig, SETTINGS, tmp_path, tell=said.append)
    drive = Drive(summary.folder)
    depths = [len(drive.frame(i).depth_points) for i in range(len(drive))]
    assert len(drive) == 24 and [i for i, count in enumerate(depths) if not count] == [3, 4]
    assert "[1/1] drive0.mcap: 2 malformed sweeps of /lidar/points are left out" in said
    assert drive.info["broken_sweeps"] == {"/lidar/points": 2}
