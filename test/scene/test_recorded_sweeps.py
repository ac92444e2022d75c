"""Sweeps of a recording: those that can be read and placed, and a reason where none can."""

from pathlib import Path

import numpy as np
import pytest

from dualview.errors import BagError
from dualview.scene.bag_messages import points_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter
from dualview.scene.recorded import read_transforms
from dualview.scene.recorded_sweeps import read_sweeps
from dualview.scene.rig import rig_from_dict

RIG = rig_from_dict({"cameras": [{"name": "a", "image_topic": "/a/raw"}], "lidar_topics": ["/lidar"]}, "test")
STEP = 100_000_000
POINTS = np.array([[3.0, 4, 1, 200], [5, 6, 0, 7]], np.float32)


def write(path: Path, posed_until: int, broken: tuple[int, ...] = ()) -> list[int]:
    """Six sweeps, the vehicle's pose for the first of them; returns the stamps of those that read_sweeps gives."""
    with BagWriter(path, RIG) as bag:
        bag.static_transforms(0, {"lidar": np.eye(4)})
        for index in range(6):
            if index <= posed_until:
                bag.ego_pose(index * STEP, np.eye(4))
            cloud = points_message(index * STEP, "lidar", POINTS)
            if index in broken:
                cloud.fields[2].name = "height"
            bag.message("/lidar", cloud, index * STEP)
    with BagReader(path) as bag:
        sweeps = list(read_sweeps(bag, RIG, read_transforms(bag)))
    for sweep in sweeps:
        assert np.array_equal(sweep.points, POINTS)
    return [sweep.stamp_ns // STEP for sweep in sweeps]


def test_sweeps_without_a_pose_or_malformed_are_left_out(tmp_path: Path) -> None:
    assert write(tmp_path / "all.mcap", 5) == [0, 1, 2, 3, 4, 5]
    assert write(tmp_path / "some.mcap", 3, broken=(1,)) == [0, 2, 3]


def test_the_reason_is_told_where_none_is_left(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"none of the LiDAR sweeps of .*unread.mcap can be used \(/lidar: .* no field z\)"):
        write(tmp_path / "unread.mcap", 5, broken=(0, 1, 2, 3, 4, 5))
    with pytest.raises(BagError, match=r"none of the LiDAR sweeps of .*unplaced.mcap can be used .*base_link"):
        write(tmp_path / "unplaced.mcap", -1)
