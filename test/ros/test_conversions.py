"""Messages say what the detector said: frames, units, ids, and arrays byte by byte."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dualview.msg import BevMap as BevMapMessage
from dualview.msg import TrackedObject3DArray
from rclpy.serialization import deserialize_message, serialize_message

from dualview.detectors.output import BevMap
from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D
from dualview.ros import conversions as convert
from dualview.ros.bev_image import BevPainter
from dualview.ros.track_life import ExistenceFilter

STAMP = 1_700_000_000_123_456_789


def boxes() -> Boxes3D:
    return Boxes3D(
        center=torch.tensor([[10.0, 2.0, 1.0], [-5.0, 0.0, 0.5]]), size=torch.tensor([[4.5, 1.9, 1.6], [0.7, 0.6, 1.8]]),
        yaw=torch.tensor([0.3, -3.0]), velocity=torch.tensor([[3.0, 0.0, 0.0], [math.nan, math.nan, math.nan]]),
        label=torch.tensor([0, 1]), score=torch.tensor([0.75, 0.5]), track_id=torch.tensor([7, 1 << 40]),
    )  # fmt: skip


def track_set(frame: str = "odom", **changes: object) -> convert.TrackSet:
    return convert.TrackSet(
        STAMP, frame, convert.boxes_in_frame(boxes(), None), torch.tensor([3, 0]), torch.tensor([2, 1]), [0.7, 0.5],
        ("car", "pedestrian"), b"\x01\x02\x03\x04\x05\x06\x07\x08",
    )  # fmt: skip


def test_tracks_survive_the_wire() -> None:
    sent = convert.tracks_message(track_set(), "model", ("a", "b"), [True, False])
    got = deserialize_message(serialize_message(sent), TrackedObject3DArray)
    assert (got.header.stamp.sec, got.header.stamp.nanosec, got.header.frame_id) == (
        1_700_000_000,
        123_456_789,
        "odom",
    )
    assert (got.model_name, got.camera_names, list(got.camera_mask)) == ("model", ["a", "b"], [True, False])
    assert got.missing_cameras == ["b"]
    first, second = got.objects
    assert (first.class_name, first.track_id, first.age, first.camera_count) == ("car", 7, 3, 2)
    assert first.score == 0.75 and first.existence_probability == pytest.approx(0.7)
    assert (first.size.x, first.size.y, first.size.z) == pytest.approx((4.5, 1.9, 1.6))
    q = first.pose.pose.orientation
    assert 2 * math.atan2(q.z, q.w) == pytest.approx(0.3) and q.x == q.y == 0.0
    assert first.velocity.x == 3.0 and math.isnan(second.velocity.x)
    assert first.last_seen == got.header.stamp
    assert math.isnan(first.visibility) and first.num_lidar_points == -1
    assert bytes(first.uuid) == b"\x01\x02\x03\x04\x05\x06\x07\x08" + (7).to_bytes(8, "big")
    assert second.track_id == 1 << 40 and bytes(second.uuid) != bytes(first.uuid)


def test_boxes_move_to_the_world_in_double_precision() -> None:
    world_from_ego = torch.eye(4, dtype=torch.float64)
    world_from_ego[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    world_from_ego[:3, 3] = torch.tensor([600_000.125, 5_000_000.0625, 30.0], dtype=torch.float64)
    moved = convert.boxes_in_frame(boxes(), world_from_ego)
    assert moved.center.dtype == torch.float64
    assert moved.center[0].tolist() == pytest.approx(
        [600_000.125 - 2.0, 5_000_000.0625 + 10.0, 31.0], abs=1e-6
    )
    assert moved.yaw[0].item() == pytest.approx(0.3 + math.pi / 2, abs=1e-6)
    assert moved.velocity[0].tolist() == pytest.approx([0.0, 3.0, 0.0], abs=1e-6)


def test_detections_follow_the_conventions_of_vision_msgs() -> None:
    message = convert.detections_message(track_set("base_link"))
    first = message.detections[0]
    assert first.id == "7" and first.header == message.header and message.header.frame_id == "base_link"
    assert (first.results[0].hypothesis.class_id, first.results[0].hypothesis.score) == ("car", 0.75)
    assert (first.bbox.size.x, first.bbox.size.y, first.bbox.size.z) == pytest.approx((4.5, 1.9, 1.6))
    assert first.bbox.center.position.x == 10.0 and first.results[0].pose.pose == first.bbox.center


def bev_map() -> BevMap:
    features = torch.randn(5, 4, 6, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(4, 6, dtype=torch.bool)
    valid[0, 0] = False
    return BevMap(features, BevGrid(-3.0, -2.0, 1.0, 6, 4), valid)


def test_a_float16_bev_map_is_read_back() -> None:
    bev = bev_map()
    message = deserialize_message(
        serialize_message(convert.bev_message(bev, STAMP, "base_link", "float16")), BevMapMessage
    )
    data = np.frombuffer(message.data, "<f2").reshape(message.channels, message.height, message.width)
    np.testing.assert_allclose(data, bev.features.numpy(), atol=2e-3)
    assert (message.layout, message.resolution, message.header.frame_id) == ("CYX", 1.0, "base_link")
    assert (message.origin.position.x, message.origin.position.y, message.origin.orientation.w) == (
        -3.0,
        -2.0,
        1.0,
    )
    assert np.frombuffer(message.valid, np.uint8).reshape(4, 6).tolist() == bev.valid.int().tolist()


def test_a_uint8_bev_map_is_read_back_within_half_a_step() -> None:
    bev = bev_map()
    message = convert.bev_message(bev, STAMP, "base_link", "uint8")
    data = np.frombuffer(message.data, np.uint8).reshape(5, 4, 6).astype(np.float32)
    scale, offset = np.array(message.scale)[:, None, None], np.array(message.offset)[:, None, None]
    error = np.abs(offset + scale * data - bev.features.numpy())
    assert (error <= 0.51 * scale).all() and len(message.data) == 5 * 4 * 6


def test_the_bev_picture_is_turned_over_darkens_blind_cells_and_keeps_its_basis() -> None:
    painter = BevPainter("weights a")
    features = torch.zeros(8, 4, 6)
    features[:, 0, 5] = 10.0  # far right, far ahead
    picture = painter.paint(
        BevMap(features, BevGrid(-3.0, -2.0, 1.0, 6, 4), torch.ones(4, 6, dtype=torch.bool))
    )
    assert picture.shape == (4, 6, 3) and picture.dtype == np.uint8
    different = (picture.astype(int) - picture[0, 0].astype(int)).any(-1)
    assert different.tolist() == [
        [False] * 6,
        [False] * 6,
        [False] * 6,
        [False] * 5 + [True],
    ]  # bottom right of the picture
    assert torch.equal(painter.basis(8), BevPainter("weights a").basis(8))
    assert not torch.equal(painter.basis(8), BevPainter("weights b").basis(8))
    np.testing.assert_allclose((painter.basis(8) @ painter.basis(8).T).numpy(), np.eye(3), atol=1e-5)
    blind = painter.paint(bev_map())[-1, 0].astype(int)
    seen = painter.paint(BevMap(bev_map().features, bev_map().grid, torch.ones(4, 6, dtype=torch.bool)))[
        -1, 0
    ].astype(int)
    assert (blind < 0.4 * seen + 1).all()


def test_an_rgb_image_message_holds_the_pixels() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = convert.image_message(pixels, STAMP, "base_link")
    assert (message.height, message.width, message.step, message.encoding) == (2, 4, 12, "rgb8")
    assert bytes(message.data) == pixels.tobytes()


def test_existence_is_a_low_pass_of_the_score_by_stamps() -> None:
    life, second = ExistenceFilter(), 1_000_000_000
    assert life.update(0, [1], [0.4], 0.5) == [0.4]
    (later,) = life.update(second, [1], [0.9], 0.5)
    assert later == pytest.approx(0.9 - 0.5 * math.exp(-2))
    life.update(2 * second, [2], [0.5], 0.5)  # 1 isn't seen
    (back,) = life.update(2 * second, [1], [0.0], 0.5)
    assert back == pytest.approx(later * math.exp(-2))


def test_existence_forgets_vanished_tracks() -> None:
    life = ExistenceFilter()
    for i in range(1000):
        life.update(i * 100_000_000, [i], [0.5], 0.5)
    assert len(life) < 40
