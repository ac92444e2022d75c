"""The transform tree: chains, interpolation, and saying "unknown" instead of guessing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualview.errors import TransformError
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.scene.transform_buffer import TransformBuffer

SECOND = 1_000_000_000


def pose(x: float, yaw: float = 0.0) -> np.ndarray:
    return rigid_from_quaternion(np.array([x, 0, 0]), np.array([0, 0, np.sin(yaw / 2), np.cos(yaw / 2)]))


@pytest.fixture
def buffer() -> TransformBuffer:
    buffer = TransformBuffer()
    buffer.add("base_link", "camera", 0, pose(1.5), static=True)
    for i in range(11):
        buffer.add("odom", "base_link", i * SECOND // 10, pose(float(i)))
    return buffer


@given(st.integers(0, SECOND))
@settings(max_examples=40, deadline=None)
def test_positions_between_samples_are_linear(stamp: int) -> None:
    buffer = TransformBuffer()
    for i in range(11):
        buffer.add("odom", "base_link", i * SECOND // 10, pose(float(i)))
    assert buffer.lookup("odom", "base_link", stamp)[0, 3] == pytest.approx(stamp / SECOND * 10)


def test_chains_go_up_and_down_the_tree(buffer: TransformBuffer) -> None:
    assert buffer.lookup("odom", "camera", SECOND // 2)[0, 3] == pytest.approx(6.5)
    assert buffer.lookup("camera", "odom", SECOND // 2)[0, 3] == pytest.approx(-6.5)
    assert buffer.lookup("base_link", "camera", 99 * SECOND)[0, 3] == pytest.approx(1.5)  # static: true at all times
    np.testing.assert_allclose(buffer.lookup("odom", "odom", 0), np.eye(4))


def test_the_future_and_the_past_are_not_guessed(buffer: TransformBuffer) -> None:
    with pytest.raises(TransformError, match=r"'odom' -> 'base_link' is not known yet .*newest is 5 ms older"):
        buffer.lookup("odom", "base_link", SECOND + 5_000_000)
    with pytest.raises(TransformError, match="begins 10 ms after"):
        buffer.lookup("odom", "base_link", -10_000_000)


def test_holes_are_not_bridged(buffer: TransformBuffer) -> None:
    buffer.add("odom", "base_link", 4 * SECOND, pose(40.0))
    with pytest.raises(TransformError, match=r"hole of 3\.00 s"):
        buffer.lookup("odom", "base_link", 2 * SECOND)


def test_unknown_frames_are_named(buffer: TransformBuffer) -> None:
    with pytest.raises(TransformError, match="'lidar' is not in the tree; frames known: base_link, camera, odom"):
        buffer.lookup("odom", "lidar", 0)
    with pytest.raises(TransformError, match="is /tf published"):
        TransformBuffer().lookup("odom", "base_link", 0)


def test_separate_trees_and_loops_are_said(buffer: TransformBuffer) -> None:
    buffer.add("map", "other", 0, pose(0.0), static=True)
    with pytest.raises(TransformError, match="separate trees"):
        buffer.lookup("odom", "other", 0)
    loop = TransformBuffer()
    loop.add("a", "b", 0, pose(0.0), static=True)
    loop.add("b", "a", 0, pose(0.0), static=True)
    with pytest.raises(TransformError, match="loop"):
        loop.lookup("a", "b", 0)


def test_history_is_bounded(buffer: TransformBuffer) -> None:
    for i in range(5000):
        buffer.add("odom", "base_link", i * SECOND // 100, pose(float(i)))
    edge = buffer._edges["base_link"]
    assert len(edge.stamps) == len(edge.samples) <= 1001


def test_a_whole_recording_is_kept_in_whatever_order_it_comes() -> None:
    buffer = TransformBuffer(history_s=None)
    for second in (0, 1, 900, 2, 901, 1):  # one far ahead, one twice
        buffer.add("odom", "base_link", second * SECOND, pose(float(second)))
    assert buffer.lookup("odom", "base_link", SECOND // 2)[0, 3] == pytest.approx(0.5)
    assert buffer.lookup("odom", "base_link", 900 * SECOND + SECOND // 2)[0, 3] == pytest.approx(900.5)


def test_frames_that_fell_silent_make_room(buffer: TransformBuffer) -> None:
    for i in range(2000):
        buffer.add("odom", "base_link", i * SECOND, pose(float(i)))
        buffer.add("odom", f"object_{i}", i * SECOND, pose(0.0))
    assert len(buffer._edges) < 300
    for i in range(300):  # of a machine whose clock is an hour ahead
        buffer.add("odom", f"stranger_{i}", 5600 * SECOND + i, pose(0.0))
    assert buffer.lookup("odom", "base_link", 1999 * SECOND)[0, 3] == pytest.approx(1999.0)
    assert buffer.lookup("odom", "camera", 1999 * SECOND)[0, 3] == pytest.approx(2000.5)  # static frames stay


def test_an_edge_whose_time_goes_back_starts_anew(buffer: TransformBuffer) -> None:
    for i in range(30):
        buffer.add("odom", "base_link", i * SECOND // 10, pose(float(i)))
    buffer.add("odom", "base_link", 0, pose(100.0))
    assert buffer.lookup("odom", "base_link", 0)[0, 3] == pytest.approx(100)
    with pytest.raises(TransformError):
        buffer.lookup("odom", "base_link", SECOND)


def test_forgetting_the_future(buffer: TransformBuffer) -> None:
    buffer.forget_after(SECOND // 2)
    assert buffer.lookup("odom", "base_link", SECOND // 2)[0, 3] == pytest.approx(5)
    with pytest.raises(TransformError):
        buffer.lookup("odom", "base_link", SECOND // 2 + 1)
    assert buffer.lookup("base_link", "camera", SECOND)[0, 3] == pytest.approx(1.5)


def test_samples_out_of_order_are_sorted_in() -> None:
    buffer = TransformBuffer()
    for i in (0, 2, 1):
        buffer.add("odom", "base_link", i * SECOND // 10, pose(float(i * i)))
    assert buffer.lookup("odom", "base_link", SECOND // 20)[0, 3] == pytest.approx(0.5)
