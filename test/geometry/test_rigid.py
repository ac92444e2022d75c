"""Rigid transforms: inverses, chains and interpolation, for any pose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.geometry.rigid import (
    interpolate_rigid,
    invert_rigid,
    quaternion_from_rigid,
    rigid_from_quaternion,
    transform_points,
    wrap_angle,
    yaw_of,
)

finite = st.floats(-100, 100)
quaternions = st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)
poses = st.builds(lambda t, q: rigid_from_quaternion(np.array(t), np.array(q)), st.tuples(finite, finite, finite), quaternions)


@given(poses)
@settings(max_examples=50, deadline=None)
def test_inverse_undoes(pose: np.ndarray) -> None:
    matrix = torch.from_numpy(pose)
    assert torch.allclose(invert_rigid(matrix) @ matrix, torch.eye(4, dtype=torch.float64), atol=1e-9)


@given(poses)
@settings(max_examples=50, deadline=None)
def test_quaternion_round_trip(pose: np.ndarray) -> None:
    again = rigid_from_quaternion(pose[:3, 3], quaternion_from_rigid(pose))
    np.testing.assert_allclose(again, pose, atol=1e-9)


@given(poses, poses)
@settings(max_examples=50, deadline=None)
def test_points_follow_chained_transforms(first: np.ndarray, second: np.ndarray) -> None:
    points = torch.randn(5, 3, dtype=torch.float64)
    a, b = torch.from_numpy(first), torch.from_numpy(second)
    assert torch.allclose(transform_points(a @ b, points), transform_points(a, transform_points(b, points)), atol=1e-8)


def test_interpolation_is_halfway_in_translation_and_angle() -> None:
    start = np.eye(4)
    quarter = rigid_from_quaternion(np.array([2.0, 4.0, 0.0]), np.array([0, 0, np.sin(np.pi / 4), np.cos(np.pi / 4)]))
    middle = interpolate_rigid(start, quarter, 0.5)
    np.testing.assert_allclose(middle[:3, 3], [1, 2, 0])
    assert yaw_of(torch.from_numpy(middle)).item() == pytest.approx(np.pi / 4)
    np.testing.assert_allclose(interpolate_rigid(start, quarter, 0.0), start)
    np.testing.assert_allclose(interpolate_rigid(start, quarter, 1.0), quarter)


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [0, 0, float("nan"), 1]])
def test_bad_quaternions_are_refused(quaternion: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and the quaternion non-zero"):
        rigid_from_quaternion(np.zeros(3), np.array(quaternion))


@given(st.floats(-50, 50))
def test_wrapped_angles_are_the_same_angle(angle: float) -> None:
    wrapped = wrap_angle(torch.tensor(angle, dtype=torch.float64)).item()
    assert -np.pi - 1e-9 <= wrapped <= np.pi + 1e-9
    assert np.cos(wrapped) == pytest.approx(np.cos(angle), abs=1e-9)
    assert np.sin(wrapped) == pytest.approx(np.sin(angle), abs=1e-9)
