"""Recordings: what is written is what is read, by us and by the mcap and rosbags libraries, and failure leaves nothing."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from dualview.errors import BagError
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.scene.bag_messages import annotations_2d_from_message, points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.message_types import message_class, message_typestore
from dualview.scene.messages import (
    calibration_from_message,
    image_from_message,
    stamp_ns,
    transform_from_message,
)
from dualview.scene.rig import Rig, load_rig, rig_from_dict

T0 = 1_700_000_000_123_456_789
RIG = load_rig("nuscenes")
CALIBRATION = CameraCalibration(1600, 900, np.array([[1266.4, 0, 816.3], [0, 1266.4, 491.5], [0, 0, 1]]))
SLOW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

numbers = st.floats(-1e6, 1e6)
rigid = st.builds(
    lambda t, r: rigid_from_quaternion(np.array(t), Rotation.from_rotvec(r).as_quat()),
    st.tuples(numbers, numbers, numbers), st.tuples(*[st.floats(-3, 3)] * 3),
)  # fmt: skip


def read_one(path: Path, topic: str) -> object:
    with BagReader(path) as bag:
        (message,) = bag.messages([topic])
    return message.message


def label(stamp: int, count: int, seed: int = 0) -> Annotations:
    random = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=random)  # noqa: E731
    boxes = Boxes3D(
        rand(count, 3).double() * 1000, rand(count, 3) + 0.1, rand(count) * 6 - 3,
        torch.where(rand(count, 1) < 0.3, float("nan"), rand(count, 3) * 20), torch.arange(count) % 3,
        torch.ones(count), torch.arange(count) + 7,
    )  # fmt: skip
    names = tuple(f"object-{i}" for i in range(count))
    attributes = tuple(("vehicle.moving",) if i % 2 else () for i in range(count))
    visibility = torch.where(rand(count) < 0.5, float("nan"), rand(count))
    return Annotations(
        stamp, boxes, ("car", "bus", "pedestrian"), names, torch.arange(count) - 1, visibility, attributes
    )


def write_small(path: Path, rig: Rig = RIG, frames: int = 3) -> None:
    with BagWriter(path, rig) as bag:
        bag.static_transforms(T0, {camera.frame: np.eye(4) for camera in rig.cameras})
        for k in range(frames):
            stamp = T0 + k * 100_000_000
            bag.ego_pose(stamp, np.eye(4))
            bag.odometry(stamp, np.eye(4), np.array([1.0, 2, 3]), np.array([4.0, 5, 6]))
            for name in rig.camera_names:
                bag.camera_info(name, stamp, CALIBRATION)
                bag.image(name, stamp, b"\xff\xd8" + bytes([k]) * 100)
            bag.points("/lidar_top/points", stamp, np.full((5, 4), k, np.float32), "lidar_top")
            bag.annotations(label(stamp, 4, k))
            bag.annotations_2d("cam_front", stamp, [("car", 0.5, (1.0, 2.0, 11.0, 22.0), "object-1")])


# ---- the topic table ------------------------------------------------------------------------------------------


def test_topics_types_and_frames_are_those_promised(tmp_path: Path) -> None:
    write_small(tmp_path / "a.mcap", frames=1)
    with BagReader(tmp_path / "a.mcap") as bag:
        types = {topic: kind for topic, (kind, _) in bag.topics.items()}
        frames = {m.topic: m.message.header.frame_id for m in bag.messages() if hasattr(m.message, "header")}
        assert bag.check_rig(RIG) == ()
    expected = {
        "/cam_front/image/compressed": ("sensor_msgs/msg/CompressedImage", "cam_front_optical_frame"),
        "/cam_front/camera_info": ("sensor_msgs/msg/CameraInfo", "cam_front_optical_frame"),
        "/lidar_top/points": ("sensor_msgs/msg/PointCloud2", "lidar_top"),
        "/tf_static": ("tf2_msgs/msg/TFMessage", None),
        "/tf": ("tf2_msgs/msg/TFMessage", None),
        "/odom": ("nav_msgs/msg/Odometry", "map"),
        "/annotations": ("dualview/msg/TrackedObject3DArray", "map"),
        "/cam_front/annotations_2d": ("vision_msgs/msg/Detection2DArray", "cam_front_optical_frame"),
    }
    for topic, (kind, frame) in expected.items():
        assert types[topic] == kind
        assert frames.get(topic) == frame
    others = {t for t in types if not t.startswith("/cam_")} - set(expected)
    assert not others, "nothing else belongs into a recording (and never /clock)"


def test_file_is_what_rosbag2_plays(tmp_path: Path) -> None:
    """Profile, encodings, complete definitions, type hashes, QoS and rosbag2's own metadata, read with the mcap library."""
    write_small(tmp_path / "a.mcap")
    with open(tmp_path / "a.mcap", "rb") as stream:
        reader = make_reader(stream, validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == sum(1 for _ in reader.iter_messages())
        assert summary.chunk_indexes and all(
            c.compression == "zstd" and c.message_index_offsets for c in summary.chunk_indexes
        )
        (record,) = [m for m in reader.iter_metadata() if m.name == "rosbag2"]
    for channel in summary.channels.values():
        schema = summary.schemas[channel.schema_id]
        assert (channel.message_encoding, schema.encoding) == ("cdr", "ros2msg")
        assert channel.metadata["topic_type_hash"] == message_typestore().hash_rihs01(schema.name)
        (qos,) = yaml.safe_load(channel.metadata["offered_qos_profiles"])
        assert qos["durability"] == ("transient_local" if channel.topic == "/tf_static" else "volatile")
        assert qos["reliability"] == "reliable"
        for part in schema.data.decode().split(
            "=" * 80 + "\n"
        ):  # every type that is used is defined in the text
            for line in part.splitlines():
                kind = line.split()[0].split("[")[0] if line.split() else ""
                if "/" in kind:
                    assert f"MSG: {kind}\n" in schema.data.decode(), f"{schema.name} lacks {kind}"
    metadata = yaml.safe_load(record.metadata["serialized_metadata"])
    assert (
        metadata["storage_identifier"] == "mcap"
        and metadata["message_count"] == summary.statistics.message_count
    )
    assert metadata["relative_file_paths"] == ["a.mcap"]
    assert metadata["starting_time"]["nanoseconds_since_epoch"] == T0
    assert metadata["duration"]["nanoseconds"] == 200_000_000
    counted = {t["topic_metadata"]["name"]: t["message_count"] for t in metadata["topics_with_message_count"]}
    assert counted["/tf"] == 3 and counted["/tf_static"] == 1
    assert "&" not in record.metadata["serialized_metadata"], "rosbag2 writes no YAML anchors"


def test_rosbags_reads_it_with_the_definitions_inside(tmp_path: Path) -> None:
    """Without our types: the file explains itself."""
    write_small(tmp_path / "a.mcap", frames=1)
    with AnyReader([tmp_path / "a.mcap"]) as bag:
        messages = {c.topic: bag.deserialize(data, c.msgtype) for c, _, data in bag.messages()}
    assert messages["/annotations"].objects[1].instance_name == "object-1"
    assert messages["/cam_front/annotations_2d"].detections[0].results[0].hypothesis.class_id == "car"


# ---- round trips ----------------------------------------------------------------------------------------------


@SLOW
@given(pose=rigid, stamp=st.integers(1, 2**31 * 10**9 - 1))
def test_poses_come_back(tmp_path: Path, pose: np.ndarray, stamp: int) -> None:
    path = tmp_path / "p.mcap"
    with BagWriter(path, RIG, overwrite=True) as bag:
        bag.ego_pose(stamp, pose)
        bag.static_transforms(stamp, {"lidar_top": pose})
        bag.odometry(stamp, pose, pose[:3, 3], -pose[:3, 3])
    for topic, parent, child in (("/tf", "map", "base_link"), ("/tf_static", "base_link", "lidar_top")):
        (transform,) = read_one(path, topic).transforms  # type: ignore[attr-defined]
        read_parent, read_child, read_stamp, matrix = transform_from_message(transform)
        assert (read_parent, read_child, read_stamp) == (parent, child, stamp)
        np.testing.assert_allclose(matrix, pose, rtol=0, atol=1e-9)
    odometry = read_one(path, "/odom")
    assert odometry.twist.twist.linear.x == pose[0, 3] and odometry.twist.twist.angular.z == -pose[2, 3]  # type: ignore[attr-defined]
    assert odometry.child_frame_id == "base_link"  # type: ignore[attr-defined]


@SLOW
@given(
    points=hnp.arrays(
        np.float32, st.tuples(st.integers(0, 50), st.just(4)), elements=st.floats(-1e3, 1e3, width=32)
    )
)
def test_points_come_back(tmp_path: Path, points: np.ndarray) -> None:
    path = tmp_path / "p.mcap"
    with BagWriter(path, RIG, overwrite=True) as bag:
        bag.points("/lidar_top/points", T0, points, "lidar_top")
    message = read_one(path, "/lidar_top/points")
    assert np.array_equal(points_from_message(message), points)


def test_points_of_other_layouts_are_read() -> None:
    """Other fields between, no intensity, several rows with padding."""
    field, cloud = message_class("sensor_msgs/msg/PointField"), message_class("sensor_msgs/msg/PointCloud2")
    raw = np.zeros((2, 3 * 20 + 8), np.uint8)  # 2 rows of 3 points of 20 bytes, and 8 bytes of padding
    points = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    for row in range(2):
        for column in range(3):
            raw[row, column * 20 + 8 : column * 20 + 20] = points[row, column].view(np.uint8)
    fields = [field(name="ring", offset=0, datatype=4, count=1)]
    fields += [field(name=n, offset=8 + 4 * i, datatype=7, count=1) for i, n in enumerate("xyz")]
    message = cloud(
        header=None, height=2, width=3, fields=fields, is_bigendian=False, point_step=20, row_step=68,
        data=raw.reshape(-1), is_dense=True,
    )  # fmt: skip
    read = points_from_message(message)
    assert np.array_equal(read[:, :3], points.reshape(6, 3)) and not read[:, 3].any()


def cloud_of(types: dict[str, tuple[int, str]], points: np.ndarray, big: bool = False, extra: int = 0) -> Any:
    """A PointCloud2 with fields of `types` (name -> PointField datatype, numpy type), columns of `points`."""
    field, cloud = message_class("sensor_msgs/msg/PointField"), message_class("sensor_msgs/msg/PointCloud2")
    packed = np.dtype([(name, (">" if big else "<") + kind) for name, (_, kind) in types.items()])
    rows = np.zeros(len(points), packed)
    for column, name in enumerate(types):
        rows[name] = points[:, column]
    fields = [
        field(name=name, offset=packed.fields[name][1] + extra, datatype=datatype, count=1)  # type: ignore[index]
        for name, (datatype, _) in types.items()
    ]
    return cloud(
        header=None, height=1, width=len(rows), fields=fields, is_bigendian=big, point_step=packed.itemsize,
        row_step=packed.itemsize * len(rows), data=rows.view(np.uint8).reshape(-1), is_dense=True,
    )  # fmt: skip


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("intensity", [(1, "i1"), (2, "u1"), (3, "i2"), (4, "u2"), (5, "i4"), (6, "u4"), (8, "f8")])
def test_points_of_other_types_are_read(intensity: tuple[int, str], big: bool) -> None:
    points = np.array([[1.5, -2, 0.25, 100], [3, 4, 5, 7]])
    types = {"x": (8, "f8"), "y": (8, "f8"), "z": (7, "f4"), "intensity": intensity}
    read = points_from_message(cloud_of(types, points, big))
    assert read.dtype == np.float32 and np.array_equal(read, points)


def test_a_cloud_that_cannot_be_read_says_which_field() -> None:
    points, place = np.zeros((2, 3)), {name: (7, "f4") for name in "xyz"}
    with pytest.raises(ValueError, match="no field z"):
        points_from_message(cloud_of({name: place[name] for name in "xy"}, points))
    with pytest.raises(ValueError, match="field y is of unknown type 9"):
        points_from_message(cloud_of({**place, "y": (9, "f4")}, points))
    with pytest.raises(ValueError, match="field z lies beyond its points of 12 bytes"):
        points_from_message(cloud_of(place, points, extra=1))


@SLOW
@given(jpeg=st.binary(max_size=500))
def test_image_bytes_are_not_touched(tmp_path: Path, jpeg: bytes) -> None:
    path = tmp_path / "i.mcap"
    with BagWriter(path, RIG, overwrite=True) as bag:
        bag.image("cam_back", T0, jpeg)
    image = image_from_message(read_one(path, "/cam_back/image/compressed"))
    assert bytes(image.data) == jpeg and image.stamp_ns == T0 and image.compressed  # type: ignore[call-overload]
    assert image.frame_id == "cam_back_optical_frame"


def test_raw_images_come_back(tmp_path: Path) -> None:
    rig = rig_from_dict({"cameras": [{"name": "a", "image_topic": "/a/raw"}]}, "test")
    pixels = np.random.default_rng(0).integers(0, 255, (7, 5, 3), dtype=np.uint8)
    with BagWriter(tmp_path / "r.mcap", rig) as bag:
        bag.raw_image("a", T0, pixels, "bgr8")
    image = image_from_message(read_one(tmp_path / "r.mcap", "/a/raw"))
    assert (image.height, image.width, image.step, image.encoding) == (7, 5, 15, "bgr8")
    assert np.array_equal(np.asarray(image.data).reshape(7, 5, 3), pixels)


@pytest.mark.parametrize(
    "calibration",
    [
        CALIBRATION,
        CameraCalibration(
            640, 480, CALIBRATION.intrinsics, "plumb_bob", np.array([-0.1, 0.02, 1e-3, 2e-3, 0.1])
        ),
        CameraCalibration(640, 480, CALIBRATION.intrinsics, "equidistant", np.array([0.1, 0.2, 0.3, 0.4])),
        CameraCalibration(
            640, 480, CALIBRATION.intrinsics, "plumb_bob", np.full(4, 0.1), np.diag([300.0, 310.0, 1.0])
        ),
    ],
)
def test_calibrations_come_back(tmp_path: Path, calibration: CameraCalibration) -> None:
    with BagWriter(tmp_path / "c.mcap", RIG) as bag:
        bag.camera_info("cam_front", T0, calibration)
    read = calibration_from_message(read_one(tmp_path / "c.mcap", "/cam_front/camera_info"))
    assert read.same_as(calibration)
    expected = (
        calibration.intrinsics
        if calibration.rectified_intrinsics is None
        else calibration.rectified_intrinsics
    )
    assert read.rectified_intrinsics is not None and np.array_equal(read.rectified_intrinsics, expected)


@SLOW
@given(count=st.integers(0, 20), seed=st.integers(0, 1000))
def test_labels_come_back(tmp_path: Path, count: int, seed: int) -> None:
    path, written = tmp_path / "l.mcap", label(T0, count, seed)
    rig = rig_from_dict({"world_frame": "map", "class_names": ["pedestrian", "car", "bus"],
                         "cameras": [{"name": "a", "image_topic": "/a"}]}, "test")  # fmt: skip
    with BagWriter(path, rig, overwrite=True) as bag:
        bag.annotations(written)
    with BagReader(path) as bag:
        (read,) = bag.annotations(rig)
    assert read.stamp_ns == T0 and read.instance_ids == written.instance_ids
    assert [read.class_names[i] for i in read.boxes.label] == [
        written.class_names[i] for i in written.boxes.label
    ]
    assert torch.equal(read.boxes.center, written.boxes.center)
    assert torch.equal(read.boxes.size, written.boxes.size)
    torch.testing.assert_close(read.boxes.yaw, written.boxes.yaw, rtol=0, atol=2e-6)
    assert torch.equal(read.boxes.velocity.nan_to_num(-1), written.boxes.velocity.nan_to_num(-1))
    assert torch.equal(read.boxes.track_id, written.boxes.track_id)
    assert torch.equal(read.num_lidar_points, written.num_lidar_points)
    assert torch.equal(read.visibility.nan_to_num(-1), written.visibility.nan_to_num(-1))
    assert read.attributes == written.attributes or count == 0


def test_2d_labels_come_back(tmp_path: Path) -> None:
    labels = [("car", 0.5, (1.0, 2.0, 11.5, 22.0), "x"), ("bus", 1.0, (0.0, 0.0, 4.0, 8.0), "")]
    with BagWriter(tmp_path / "d.mcap", RIG) as bag:
        bag.annotations_2d("cam_front", T0, labels)
    assert annotations_2d_from_message(read_one(tmp_path / "d.mcap", "/cam_front/annotations_2d")) == labels


def test_raw_messages_come_back_byte_for_byte(tmp_path: Path) -> None:
    write_small(tmp_path / "a.mcap")
    with BagReader(tmp_path / "a.mcap") as bag, BagWriter(tmp_path / "b.mcap", RIG) as copy:
        for m in bag.messages(raw=True):
            copy.write_raw(m.topic, m.type.replace("/msg/", "/"), m.message, m.log_time_ns)
    with BagReader(tmp_path / "a.mcap") as first, BagReader(tmp_path / "b.mcap") as second:
        assert first.topics == second.topics
        assert list(first.messages(raw=True)) == list(second.messages(raw=True))


def test_messages_out_of_order_are_read_in_order(tmp_path: Path) -> None:
    stamps = np.random.default_rng(1).permutation(3000)
    with BagWriter(tmp_path / "o.mcap", RIG) as bag:
        for s in stamps:
            bag.image("cam_front", T0 + int(s), bytes(1000))  # several chunks, each spanning nearly all times
    with BagReader(tmp_path / "o.mcap") as read:
        assert [m.log_time_ns - T0 for m in read.messages()] == list(range(3000))


def test_equal_stamps_keep_their_order(tmp_path: Path) -> None:
    """The assembler relies on it: a pose comes before the image that needs it."""
    write_small(tmp_path / "a.mcap", frames=1)
    with BagReader(tmp_path / "a.mcap") as bag:
        topics = [m.topic for m in bag.messages()]
    assert topics[:2] == ["/tf_static", "/tf"] and topics.index("/tf") < topics.index(
        "/cam_front/image/compressed"
    )
    assert topics.index("/cam_front/camera_info") < topics.index("/cam_front/image/compressed")


# ---- failure --------------------------------------------------------------------------------------------------


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="on purpose"), BagWriter(tmp_path / "f.mcap", RIG) as bag:
        bag.ego_pose(T0, np.eye(4))
        raise RuntimeError("on purpose")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_had_again_is_kept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="too early"), BagWriter(tmp_path / "empty.mcap", RIG, keep_incomplete=True):
        raise RuntimeError("too early")
    assert not list(tmp_path.iterdir()), "an empty recording would take a whole one's place"
    with pytest.raises(RuntimeError, match="on purpose"), BagWriter(tmp_path / "f.mcap", RIG, keep_incomplete=True) as bag:
        bag.ego_pose(T0, np.eye(4))
        raise RuntimeError("on purpose")
    with BagReader(tmp_path / "f.mcap") as read:
        assert read.topics["/tf"].count == 1
    random, before = np.random.default_rng(0), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with (
            pytest.raises(BagError, match=r"until then is in .*full.incomplete.mcap: `mcap recover`"),
            BagWriter(tmp_path / "full.mcap", RIG, keep_incomplete=True) as bag,
        ):
            resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, before[1]))  # as on a full disk
            for i in range(50):
                bag.image("cam_front", T0 + i, random.bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.mcap", "full.incomplete.mcap"]
    assert (tmp_path / "full.incomplete.mcap").stat().st_size > 2_000_000


def test_latched_topics_stay_latched(tmp_path: Path) -> None:
    text = b"\x00\x01\x00\x00\x01\x00\x00\x00\x00"
    with BagWriter(tmp_path / "a.mcap", RIG) as bag:
        bag.static_transforms(T0, {"cam_front": np.eye(4)})
        bag.write_raw("/description", "std_msgs/msg/String", text, T0, latched=True)
        bag.write_raw("/news", "std_msgs/msg/String", text, T0)
    with BagReader(tmp_path / "a.mcap") as read:
        assert read.latched == {"/tf_static", "/description"}


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "f.mcap", RIG) as bag:
        bag.ego_pose(T0, np.eye(4))
        assert not (tmp_path / "f.mcap").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["f.mcap"]


def test_failure_keeps_the_recording_that_was_to_be_replaced(tmp_path: Path) -> None:
    write_small(tmp_path / "a.mcap", frames=1)
    before = (tmp_path / "a.mcap").read_bytes()
    with pytest.raises(RuntimeError), BagWriter(tmp_path / "a.mcap", RIG, overwrite=True):
        raise RuntimeError
    assert (tmp_path / "a.mcap").read_bytes() == before


def test_existing_files_are_not_overwritten_by_accident(tmp_path: Path) -> None:
    write_small(tmp_path / "a.mcap", frames=1)
    with pytest.raises(BagError, match="exists already"):
        BagWriter(tmp_path / "a.mcap", RIG)


def test_misuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"\.mcap"):
        BagWriter(tmp_path / "a.bag", RIG)
    with pytest.raises(BagError, match="can't be written"):
        (tmp_path / "file").write_text("")
        BagWriter(tmp_path / "file" / "a.mcap", RIG)
    with BagWriter(tmp_path / "a.mcap", RIG) as bag:
        with pytest.raises(BagError, match="not known"):
            bag.write_raw("/x", "some_msgs/msg/Thing", b"", T0)
        bag.write_raw("/x", "std_msgs/msg/String", b"\x00\x01\x00\x00\x01\x00\x00\x00\x00", T0)
        with pytest.raises(BagError, match="can't also carry"):
            bag.write_raw("/x", "std_msgs/msg/Bool", b"\x00\x01\x00\x00\x01", T0)
        with pytest.raises(BagError, match="compressed"):
            bag.raw_image("cam_front", T0, np.zeros((2, 2, 3), np.uint8))
        with pytest.raises(ValueError, match=r"\[P, 4\]"):
            bag.points("/lidar_top/points", T0, np.zeros((3, 3), np.float32), "lidar_top")


def test_empty_recording_is_a_recording(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "e.mcap", RIG):
        pass
    with BagReader(tmp_path / "e.mcap") as bag:
        assert bag.topics == {} and list(bag.messages()) == [] and bag.duration == 0.0
        with pytest.raises(BagError, match="no topics at all"):
            bag.check_rig(RIG)


def test_type_hashes_are_those_of_ros() -> None:
    """From the wire specification: ROS 2 peers refuse other hashes."""
    expected = {
        "tf2_msgs/msg/TFMessage": "e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087",
        "vision_msgs/msg/Detection3DArray": "793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018",
        "vision_msgs/msg/Detection2DArray": "214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
    }
    for name, digest in expected.items():
        assert message_typestore().hash_rihs01(name) == f"RIHS01_{digest}"


def test_stamps_of_all_times_survive(tmp_path: Path) -> None:
    stamps = [1, 999_999_999, 1_000_000_000, T0, (2**31 - 1) * 10**9 + 999_999_999]
    with BagWriter(tmp_path / "s.mcap", RIG) as bag:
        for stamp in stamps:
            bag.image("cam_front", stamp, b"x")
    with BagReader(tmp_path / "s.mcap") as read:
        assert [stamp_ns(m.message.header.stamp) for m in read.messages()] == stamps
        assert [m.log_time_ns for m in read.messages()] == stamps
