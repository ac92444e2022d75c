"""Clouds of several sweeps: which sweeps belong to an instant, and that still things lie still."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualview.scene.recorded_sweeps import CloudWalk, in_ego
from dualview.scene.sweeps import EgoSweep, LidarInput, cloud_at

SECOND = 1_000_000_000


def pose(seconds: float) -> np.ndarray:
    """A vehicle that drives a curve, far from the world's origin."""
    yaw = 0.3 * seconds
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:3, 3] = [5000 + 8 * seconds, -3000 + 2 * seconds, 1]
    return matrix


STILL = np.random.default_rng(0).uniform(-20, 20, (40, 3)) + [5000, -3000, 1]


def sweep(seconds: float, topic: str = "/lidar") -> EgoSweep:
    """The still points as the vehicle sees them at a moment; their intensity is their number."""
    local = (np.c_[STILL, np.ones(40)] @ np.linalg.inv(pose(seconds)).T)[:, :3]
    points = np.c_[local, np.arange(40)].astype(np.float32)
    return EgoSweep(topic, round(seconds * SECOND), points, pose(seconds))


def test_still_things_lie_still() -> None:
    sweeps = [sweep(0.1 * i) for i in range(6)]
    cloud = cloud_at(sweeps, round(0.5 * SECOND), torch.from_numpy(pose(0.5)), LidarInput(10, 1.0))
    assert cloud.shape == (240, 5)
    now = torch.from_numpy(sweep(0.5).points)
    for number in range(6):
        part = cloud[40 * number : 40 * number + 40]
        assert torch.allclose(part[:, :3], now[:, :3], atol=2e-3)
        assert torch.equal(part[:, 3], now[:, 3])
        assert torch.allclose(part[:, 4], torch.full((40,), 0.1 * number), atol=1e-6)  # the newest first


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(LidarInput(10, 0.25), [0.0, 0.1, 0.2]), (LidarInput(2, 9.0), [0.0, 0.1]), (LidarInput(1, 0.01), [0.0])],
)
def test_which_sweeps(settings: LidarInput, expected: list[float]) -> None:
    sweeps = [sweep(0.1 * i) for i in range(9)]  # also some of the future
    cloud = cloud_at(sweeps, round(0.5 * SECOND), torch.from_numpy(pose(0.5)), settings)
    assert cloud[:, 4].unique().tolist() == pytest.approx(expected, abs=1e-6)


def test_a_sweep_that_ends_a_little_later_belongs_too() -> None:
    sweeps = [sweep(0.0), sweep(0.1)]
    cloud = cloud_at(sweeps, round(0.05 * SECOND), torch.from_numpy(pose(0.05)), LidarInput())
    assert cloud[:, 4].unique().tolist() == pytest.approx([-0.05, 0.05], abs=1e-6)
    assert not len(cloud_at(sweeps[1:], 0, torch.eye(4), LidarInput()))


@pytest.mark.parametrize(
    ("late", "newest"),
    [(0.0, 0.0), (0.02, 0.02), (0.03, -0.02)],  # s after a sweep -> age of the newest one that belongs
)
def test_at_20_hz_no_whole_turn_of_the_future_is_taken(late: float, newest: float) -> None:
    sweeps = [sweep(0.05 * i) for i in range(20)]
    seconds = 0.5 + late
    cloud = cloud_at(sweeps, round(seconds * SECOND), torch.from_numpy(pose(seconds)), LidarInput())
    ages = cloud[:, 4].unique().tolist()
    assert ages[0] == pytest.approx(newest, abs=1e-6) and ages[0] >= -0.025
    assert np.diff(ages) == pytest.approx(0.05, abs=1e-6) and len(ages) == 10


def test_several_lidars_each_bring_their_sweeps() -> None:
    sweeps = [sweep(0.1 * i, topic) for i in range(4) for topic in ("/b", "/a")]
    cloud = cloud_at(sweeps, round(0.3 * SECOND), torch.from_numpy(pose(0.3)), LidarInput(2, 1.0))
    assert len(cloud) == 4 * 40
    assert cloud[:, 4].view(4, 40)[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.0, 0.1], abs=1e-6)


def test_walking_equals_looking_at_everything() -> None:
    sweeps = [sweep(0.05 * i, f"/{i % 2}") for i in range(40)]
    settings = LidarInput(3, 0.4)
    walk = CloudWalk(iter(sweeps), settings)
    for seconds in (0.0, 0.33, 0.34, 1.2, 1.9, 2.5):
        stamp = round(seconds * SECOND)
        whole = cloud_at(sweeps, stamp, torch.from_numpy(pose(seconds)), settings)
        assert torch.equal(torch.from_numpy(walk.at(stamp, pose(seconds))), whole)


def test_the_vehicle_itself_and_broken_returns_are_left_out() -> None:
    points = np.array([[0.5, 0.5, 0, 1], [0.5, 3, 0, 2], [np.nan, 5, 0, 3], [4, 4, 1, np.nan]], np.float32)
    mounted = np.eye(4)
    mounted[:3, 3] = [1, 0, 2]
    assert in_ego(points, mounted).tolist() == [[1.5, 3, 2, 2], [5, 4, 3, 0]]  # an intensity alone isn't missed
