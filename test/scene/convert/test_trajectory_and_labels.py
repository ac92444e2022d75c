"""What converters share: the ego path between its poses, point counts and velocities of boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dualview.errors import BagError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.convert.labels import count_points, track_velocities
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.convert.trajectory import Trajectory

SECOND = 1_000_000_000


def screw(seconds: float, speed: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """A pose that drives straight through the world while it turns steadily."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(turn * seconds).as_matrix()
    pose[:3, 3] = speed * seconds
    return pose


@settings(max_examples=50, deadline=None)
@given(
    seconds=st.floats(-0.14, 1.04),
    speed=st.tuples(*[st.floats(-30, 30)] * 3),
    turn=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_steady_motion_is_followed_exactly(seconds: float, speed: tuple, turn: tuple) -> None:
    stamps = np.arange(10, dtype=np.int64) * SECOND // 10
    poses = np.array([screw(t / SECOND, np.array(speed), np.array(turn)) for t in stamps])
    trajectory = Trajectory(stamps, poses)
    stamp = round(seconds * SECOND)
    pose = trajectory.pose_at(stamp)
    assert pose is not None
    np.testing.assert_allclose(pose, screw(stamp / SECOND, np.array(speed), np.array(turn)), atol=1e-7)


def test_twist_is_along_the_ego_axes() -> None:
    """A vehicle heading north (world +y) at 10 m/s while turning left at 0.5 rad/s."""
    stamps = np.arange(11, dtype=np.int64) * SECOND // 10
    poses = []
    for t in stamps / SECOND:
        heading = np.pi / 2 + 0.5 * (t - 0.5)
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec([0, 0, heading]).as_matrix()
        pose[:2, 3] = 10 / 0.5 * np.array([np.sin(heading), -np.cos(heading)])  # the circle that this drives
        poses.append(pose)
    linear, angular = Trajectory(stamps, np.array(poses)).twist_at(SECOND // 2)
    np.testing.assert_allclose(linear, [10, 0, 0], atol=0.01)
    np.testing.assert_allclose(angular, [0, 0, 0.5], atol=1e-9)


def test_far_outside_and_in_holes_there_is_no_pose() -> None:
    trajectory = Trajectory(np.array([0, 1, 3, 4]) * SECOND, np.tile(np.eye(4), (4, 1, 1)))
    assert trajectory.pose_at(-SECOND // 5) is None and trajectory.pose_at(5 * SECOND) is None
    assert trajectory.pose_at(2 * SECOND) is None
    assert trajectory.pose_at(3 * SECOND) is not None and trajectory.pose_at(SECOND // 2) is not None


def test_a_single_pose_holds_at_its_stamp_only() -> None:
    trajectory = Trajectory(np.array([5]), np.eye(4)[None])
    assert trajectory.pose_at(5) is not None and trajectory.pose_at(6) is None
    assert not np.any(trajectory.twist_at(5))


@pytest.mark.parametrize("stamps", [[], [0, 0], [1, 0], [0]])
def test_broken_pose_tables_are_refused(stamps: list[int]) -> None:
    with pytest.raises(BagError):
        Trajectory(np.array(stamps, dtype=np.int64), np.tile(np.eye(4), (2 if stamps else 0, 1, 1)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_point_counts_agree_with_the_boxes(seed: int) -> None:
    random = np.random.default_rng(seed)
    points = random.uniform(-5, 5, (500, 3))
    center, size = random.uniform(-5, 5, (7, 3)), random.uniform(0.1, 6, (7, 3))
    yaw = random.uniform(-4, 4, 7)
    boxes = Boxes3D(
        torch.tensor(center), torch.tensor(size), torch.tensor(yaw), torch.zeros(7, 3), torch.zeros(7).long(),
        torch.ones(7), torch.arange(7),
    )  # fmt: skip
    expected = boxes.contains(torch.tensor(points)).sum(1).numpy()
    assert np.array_equal(count_points(points, center, size, yaw), expected)


def test_velocities_are_central_differences() -> None:
    half = SECOND // 2
    stamps = [0, half, 2 * half, 10 * SECOND]
    centers = [
        np.array([[0.0, 0, 0], [5, 5, 5]]),
        np.array([[1.0, 0, 0]]),
        np.array([[4.0, 0, 0]]),
        np.array([[9.0, 9, 9]]),
    ]
    instances = [["a", "lonely"], ["a"], ["a"], ["a"]]
    velocities = track_velocities(stamps, instances, centers)
    assert velocities[0][0] == pytest.approx([2, 0, 0])  # one-sided at the start
    assert velocities[1][0] == pytest.approx([4, 0, 0])  # (4 - 0) m in 1 s
    assert np.isnan(velocities[0][1]).all(), "seen once: unknown"
    assert np.isnan(velocities[2][0]).all() and np.isnan(velocities[3][0]).all(), (
        "neighbours nine seconds apart"
    )


def test_velocities_follow_rows_that_change_places() -> None:
    centers = [np.array([[0.0, 0, 0], [10, 0, 0]]), np.array([[11.0, 0, 0], [1, 0, 0]])]
    velocities = track_velocities([0, SECOND], [["a", "b"], ["b", "a"]], centers)
    assert all(v[:, 0] == pytest.approx([1, 1]) for v in velocities)


def test_summary_counts_and_keeps_few_examples() -> None:
    summary = ConversionSummary()
    summary.written["images"] = 3
    for i in range(9):
        summary.pass_over("missing images", f"front {i}")
    assert "9 missing images (front 0, front 1, front 2, front 3, front 4, …)" in str(summary)
    assert "written: 3 images" in str(summary)
