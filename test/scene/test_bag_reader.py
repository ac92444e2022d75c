"""Reading every kind of recording, by time, and saying clearly what is wrong with a damaged one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags import rosbag1, rosbag2
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dualview.errors import BagError
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader, topic_table
from dualview.scene.bag_writer import BagWriter
from dualview.scene.message_types import message_typestore
from dualview.scene.rig import Rig, load_rig, rig_from_dict

T0 = 1_700_000_000_000_000_000
STEP = 10_000_000
RIG = load_rig("nuscenes")


def write(path: Path, start: int = 0, stop: int = 1000, size: int = 2000, rig: Rig = RIG) -> None:
    """Images at 100 Hz with incompressible content, so that the file has many chunks."""
    random = np.random.default_rng(start)
    with BagWriter(path, rig) as bag:
        for k in range(start, stop):
            bag.ego_pose(T0 + k * STEP, np.eye(4))
            bag.image("cam_front", T0 + k * STEP, random.bytes(size))


def as_rosbag2(
    source: Path, target: Path, plugin: StoragePlugin, mode: CompressionMode = CompressionMode.NONE
) -> None:
    """The same messages as a rosbag2 folder that the rosbags library wrote."""
    writer = rosbag2.Writer(target, version=9, storage_plugin=plugin)
    if mode != CompressionMode.NONE:
        writer.set_compression(mode, CompressionFormat.ZSTD)
    with BagReader(source) as bag, writer:
        connections = {
            t: writer.add_connection(t, kind, typestore=message_typestore())
            for t, (kind, _) in bag.topics.items()
        }
        for m in bag.messages(raw=True):
            writer.write(connections[m.topic], m.log_time_ns, m.message)


KINDS: dict[str, Callable[[Path, Path], Path]] = {}


def kind(function: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
    KINDS[function.__name__] = function
    return function


@kind
def bare_mcap(source: Path, folder: Path) -> Path:
    return source


@kind
def folder_with_mcap(source: Path, folder: Path) -> Path:
    as_rosbag2(source, folder / "bag", StoragePlugin.MCAP)
    return folder / "bag"


@kind
def folder_with_zstd_chunks(source: Path, folder: Path) -> Path:
    as_rosbag2(source, folder / "bag", StoragePlugin.MCAP, CompressionMode.STORAGE)
    return folder / "bag"


@kind
def folder_with_sqlite(source: Path, folder: Path) -> Path:
    as_rosbag2(source, folder / "bag", StoragePlugin.SQLITE3)
    return folder / "bag"


@kind
def bare_sqlite(source: Path, folder: Path) -> Path:
    return folder_with_sqlite(source, folder) / "bag.db3"


@kind
def compressed_file(source: Path, folder: Path) -> Path:
    as_rosbag2(source, folder / "bag", StoragePlugin.SQLITE3, CompressionMode.FILE)
    return folder / "bag"


@kind
def compressed_messages(source: Path, folder: Path) -> Path:
    as_rosbag2(source, folder / "bag", StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    return folder / "bag"


@kind
def folder_without_metadata(source: Path, folder: Path) -> Path:
    bag = folder_with_mcap(source, folder)
    (bag / "metadata.yaml").unlink()
    return bag


@kind
def split_folder(source: Path, folder: Path) -> Path:
    """Two files that overlap in time, as a recorder's splits may."""
    (folder / "bag").mkdir()
    with BagReader(source) as bag:
        messages = list(bag.messages(raw=True))
    for name, part in (
        ("bag_0", messages[:70] + messages[90:110]),
        ("bag_1", messages[70:90] + messages[110:]),
    ):
        with BagWriter(folder / "bag" / f"{name}.mcap", RIG) as out:
            for m in part:
                out.write_raw(m.topic, m.type, m.message, m.log_time_ns)
    return folder / "bag"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_of_rosbag2_reads_the_same(tmp_path: Path, name: str) -> None:
    write(tmp_path / "source.mcap", stop=100)
    path = KINDS[name](tmp_path / "source.mcap", tmp_path)
    with BagReader(tmp_path / "source.mcap") as expected, BagReader(path) as bag:
        assert bag.topics == expected.topics
        assert (bag.start_ns, bag.end_ns, bag.duration) == (T0, T0 + 99 * STEP, 0.99)
        for window in (
            (None, None),
            (T0 + 20 * STEP, T0 + 30 * STEP),
            (None, T0 + STEP),
            (T0 + 99 * STEP, None),
        ):
            read, wanted = (list(b.messages(None, *window, raw=True)) for b in (bag, expected))
            assert sorted(read, key=lambda m: (m.log_time_ns, m.topic)) == sorted(
                wanted, key=lambda m: (m.log_time_ns, m.topic)
            )
            assert [m.log_time_ns for m in read] == sorted(m.log_time_ns for m in wanted) and read
        for got, want in zip(bag.messages(["/tf"]), expected.messages(["/tf"]), strict=True):
            assert (
                got.message.transforms[0].header.stamp.nanosec
                == want.message.transforms[0].header.stamp.nanosec
            )


def test_windows_are_half_open_and_topics_are_picked(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=100, size=10)
    with BagReader(tmp_path / "a.mcap") as bag:
        picked = list(bag.messages(["/tf", "/not/there"], T0 + 10 * STEP, T0 + 12 * STEP))
    assert [(m.topic, m.log_time_ns) for m in picked] == [("/tf", T0 + 10 * STEP), ("/tf", T0 + 11 * STEP)]


def test_reading_a_second_does_not_touch_the_rest(tmp_path: Path) -> None:
    """Everything before and after the middle is destroyed, and the middle still reads: the index was used."""
    write(tmp_path / "a.mcap", size=20_000)
    data = bytearray((tmp_path / "a.mcap").read_bytes())
    size = len(data)
    for start, stop in ((1000, int(0.40 * size)), (int(0.60 * size), int(0.95 * size))):
        data[start:stop] = bytes(stop - start)
    (tmp_path / "a.mcap").write_bytes(data)
    with BagReader(tmp_path / "a.mcap") as bag:
        middle = list(bag.messages(start_ns=T0 + 450 * STEP, stop_ns=T0 + 550 * STEP))
        assert len(middle) == 200
        with pytest.raises(BagError, match="damaged"):
            list(bag.messages())


def test_two_readings_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=200, size=20_000)
    with BagReader(tmp_path / "a.mcap") as bag:
        alone = list(bag.messages(raw=True))
        together = list(zip(bag.messages(raw=True), bag.messages(raw=True), strict=True))
    assert [first for first, _ in together] == [second for _, second in together] == alone


def test_the_recording_knows_its_own_types(tmp_path: Path) -> None:
    """A type that isn't ours, and an older form of one that is, are read by the definitions in the file."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg("float32 speed\nstring note\n", "car_msgs/msg/Speed"))
    store.register(get_types_from_msg("std_msgs/Header header\nfloat32 total\n", "dualview/msg/Latency"))
    with rosbag2.Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, name, message in (
            ("/speed", "car_msgs/msg/Speed", store.types["car_msgs/msg/Speed"](speed=2.5, note="hm")),
            ("/latency", "dualview/msg/Latency", store.types["dualview/msg/Latency"](
                header=store.types["std_msgs/msg/Header"](
                    stamp=store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2), frame_id="x"), total=4.5)),
        ):  # fmt: skip
            writer.write(
                writer.add_connection(topic, name, typestore=store), T0, store.serialize_cdr(message, name)
            )
    with BagReader(tmp_path / "bag") as bag:
        read = {m.topic: m.message for m in bag.messages()}
    assert (read["/speed"].speed, read["/speed"].note) == (2.5, "hm")
    assert read["/latency"].total == 4.5 and read["/latency"].header.frame_id == "x"


# ---- what is wrong --------------------------------------------------------------------------------------------


def test_truncated_mcap_says_what_is_left(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", size=20_000)
    data = (tmp_path / "a.mcap").read_bytes()
    (tmp_path / "a.mcap").write_bytes(data[: len(data) // 2])
    with pytest.raises(
        BagError, match=r"cut off or damaged.*complete messages.*mcap recover a\.mcap"
    ) as caught:
        BagReader(tmp_path / "a.mcap")
    count = int(str(caught.value).split(" complete messages")[0].split()[-1])
    assert 900 <= count <= 1000, "about half of the 2000 messages lie before the cut"


def test_damage_in_the_middle_is_placed(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", size=20_000)
    data = bytearray((tmp_path / "a.mcap").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    (tmp_path / "a.mcap").write_bytes(data)
    with BagReader(tmp_path / "a.mcap") as bag, pytest.raises(BagError, match=r"damaged after \d") as caught:
        list(bag.messages())
    seconds = float(str(caught.value).split("damaged after ")[1].split()[0])
    assert 4.4 < seconds < 5.1
    with BagReader(tmp_path / "a.mcap") as bag:  # the rest is there
        assert len(list(bag.messages(start_ns=T0 + 600 * STEP))) == 800


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
@pytest.mark.parametrize("content", [b"", b"not a recording at all, but some text" * 20])
def test_what_is_no_recording_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(BagError, match=f"x\\{suffix}"):
        BagReader(file)


def test_truncated_sqlite_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=100)
    file = bare_sqlite(tmp_path / "a.mcap", tmp_path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BagError, match="recover"), BagReader(file) as bag:
        list(bag.messages())


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="there is no recording"):
        BagReader(tmp_path / "nothing.mcap")
    with pytest.raises(BagError, match="holds no recording"):
        BagReader(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"x")
    with pytest.raises(BagError, match=r"known are \.mcap"):
        BagReader(tmp_path / "film.mp4")
    (tmp_path / "bag.mcap.zstd").write_bytes(b"x")
    with pytest.raises(BagError, match="zstd -d"):
        BagReader(tmp_path / "bag.mcap.zstd")


def test_a_missing_part_of_a_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=10)
    bag = folder_with_mcap(tmp_path / "a.mcap", tmp_path)
    shutil.move(bag / "bag.mcap", tmp_path / "elsewhere.mcap")
    with pytest.raises(BagError, match=r"bag\.mcap"):
        BagReader(bag)


def test_rig_that_does_not_fit_names_what_is_there_and_what_fits(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=2)
    with BagReader(tmp_path / "a.mcap") as bag:
        with pytest.raises(BagError) as caught:
            bag.check_rig(load_rig("pandaset"))
        for word in ("/front_camera/image/compressed", "/cam_front/image/compressed", "Rig 'nuscenes' fits"):
            assert word in str(caught.value)
        problems = bag.check_rig(RIG)
    assert any("cam_back'" in p and "no topic /cam_back/image/compressed" in p for p in problems)
    assert any("cam_front'" in p and "camera_info" in p for p in problems)


def test_labels_in_another_frame_are_refused(tmp_path: Path) -> None:
    from dualview.geometry.boxes import Boxes3D
    from dualview.scene.frame import Annotations

    none = np.zeros(0)
    empty = Annotations(T0, Boxes3D.empty(), ("car",), (), none, none)  # type: ignore[arg-type]
    with BagWriter(tmp_path / "a.mcap", RIG) as bag:
        bag.annotations(empty)
    live = rig_from_dict({"cameras": [{"name": "a", "image_topic": "/a"}]}, "live")  # world_frame is odom
    with BagReader(tmp_path / "a.mcap") as read:
        assert len(read.annotations(RIG)) == 1
        with pytest.raises(BagError, match=r"frame 'map'.*'odom'"):
            read.annotations(live)


def test_topic_table_shows_rates(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", stop=101, size=10)
    with BagReader(tmp_path / "a.mcap") as bag:
        assert "101  100.00 Hz  tf2_msgs/msg/TFMessage" in topic_table(bag)


# ---- ROS 1 ----------------------------------------------------------------------------------------------------


def test_ros1_bag_cut_off_names_the_tool(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    with rosbag1.Writer(tmp_path / "a.bag") as writer:
        connection = writer.add_connection("/s", "std_msgs/msg/String", typestore=store)
        message = store.types["std_msgs/msg/String"](data="x" * 1000)
        for k in range(100):
            writer.write(connection, T0 + k, store.serialize_ros1(message, "std_msgs/msg/String"))
    data = (tmp_path / "a.bag").read_bytes()
    (tmp_path / "a.bag").write_bytes(data[: len(data) // 2])
    with pytest.raises(BagError, match="rosbag reindex"):
        BagReader(tmp_path / "a.bag")


def write_nuscenes2bag(path: Path, tf_type: str, compressed: bool = False, frames: int = 6) -> np.ndarray:
    """A ROS 1 bag with the topics, types and frames that nuscenes2bag's source writes. Returns the image."""
    import cv2

    store = get_typestore(Stores.ROS1_NOETIC)
    if tf_type not in store.fielddefs:
        store.register(get_types_from_msg("geometry_msgs/TransformStamped[] transforms\n", tf_type))
    types = store.types

    def make(type_name: str, /, **fields: object) -> object:
        return types[type_name](**fields)

    def header(stamp: int, frame: str) -> object:
        time = make("builtin_interfaces/msg/Time", sec=stamp // 10**9, nanosec=stamp % 10**9)
        return make("std_msgs/msg/Header", seq=7, stamp=time, frame_id=frame)

    def transform(stamp: int, parent: str, child: str, xyz: tuple, q: tuple = (0.0, 0.0, 0.0, 1.0)) -> object:
        translation = make("geometry_msgs/msg/Vector3", x=xyz[0], y=xyz[1], z=xyz[2])
        rotation = make("geometry_msgs/msg/Quaternion", x=q[0], y=q[1], z=q[2], w=q[3])
        moved = make("geometry_msgs/msg/Transform", translation=translation, rotation=rotation)
        return make(
            "geometry_msgs/msg/TransformStamped",
            header=header(stamp, parent),
            child_frame_id=child,
            transform=moved,
        )

    image = np.random.default_rng(0).integers(0, 255, (90, 160, 3), dtype=np.uint8)
    image = cv2.resize(image, (1600, 900))
    cameras = [c.name for c in load_rig("nuscenes2bag").cameras]
    points = np.arange(20, dtype=np.float32).reshape(5, 4)
    with rosbag1.Writer(path) as writer:
        connections: dict[str, object] = {}

        def put(topic: str, name: str, stamp: int, message: object) -> None:
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, name, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_ros1(message, name))  # type: ignore[arg-type]

        for k in range(frames):
            stamp = T0 + k * 100_000_000
            transforms = [
                transform(stamp, "map", "odom", (0.0, 0.0, 0.0)),
                transform(stamp, "odom", "base_link", (k * 1.0, 0.0, 0.0)),
            ]
            transforms += [
                transform(stamp, "base_link", name, (1.5, 0.0, 1.5), (-0.5, 0.5, -0.5, 0.5))
                for name in cameras
            ]
            put("/tf", tf_type, stamp, make(tf_type, transforms=transforms))
            for name in cameras:
                if compressed:
                    data = np.frombuffer(cv2.imencode(".jpg", image)[1].tobytes(), np.uint8)
                    kind_name = "sensor_msgs/msg/CompressedImage"
                    put(
                        f"/{name}/compressed",
                        kind_name,
                        stamp,
                        make(kind_name, header=header(stamp, name), format="jpeg", data=data),
                    )
                else:
                    put(f"/{name}/raw", "sensor_msgs/msg/Image", stamp, make(
                        "sensor_msgs/msg/Image", header=header(stamp, name), height=900, width=1600, encoding="bgr8",
                        is_bigendian=0, step=4800, data=image.reshape(-1)))  # fmt: skip
            fields = [make("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=7, count=1) for i, n in
                      enumerate(("x", "y", "z", "intensity"))]  # fmt: skip
            put("/lidar_top", "sensor_msgs/msg/PointCloud2", stamp, make(
                "sensor_msgs/msg/PointCloud2", header=header(stamp, "lidar_top"), height=1, width=5, fields=fields,
                is_bigendian=False, point_step=16, row_step=80, data=points.view(np.uint8).reshape(-1), is_dense=True))  # fmt: skip
    return image


@pytest.mark.parametrize("tf_type", ["tf/msg/tfMessage", "tf2_msgs/msg/TFMessage"])
def test_nuscenes2bag_recording_goes_through_the_assembler(tmp_path: Path, tf_type: str) -> None:
    from dualview.scene.assembler import ClosedFrame
    from dualview.scene.images import decode_raw
    from dualview.scene.offline import iterate_frames

    image = write_nuscenes2bag(tmp_path / "scene.bag", tf_type, frames=3)
    rig = load_rig("nuscenes2bag")
    with BagReader(tmp_path / "scene.bag") as bag:
        assert bag.topics["/tf"].type == "tf2_msgs/msg/TFMessage"
        assert bag.topics["/cam_front/raw"] == ("sensor_msgs/msg/Image", 3)
        assert bag.check_rig(rig) == ()
        frames = list(iterate_frames(bag, rig))
        cloud = next(iter(bag.messages(["/lidar_top"]))).message
    assert len(frames) == 3 and all(isinstance(f, ClosedFrame) and not f.problems for f in frames)
    for k, frame in enumerate(frames):
        assert isinstance(frame, ClosedFrame)
        assert frame.world_from_ego[0, 3] == pytest.approx(k)
        assert [c.name for c in frame.cameras] == list(rig.camera_names)
        for camera in frame.cameras:
            assert camera.ego_from_camera[:3, :3] @ [0, 0, 1] == pytest.approx([1, 0, 0])
            assert camera.calibration is not None and camera.calibration.width == 1600
            assert camera.image is not None and np.array_equal(decode_raw(camera.image)[..., ::-1], image)
    assert np.array_equal(points_from_message(cloud), np.arange(20, dtype=np.float32).reshape(5, 4))


def test_ros1_messages_come_as_ros2_bytes(tmp_path: Path) -> None:
    """Raw reading serves the player: the bytes must be what ROS 2 sends for the type."""
    write_nuscenes2bag(tmp_path / "scene.bag", "tf/msg/tfMessage", compressed=True, frames=2)
    store = message_typestore()
    with BagReader(tmp_path / "scene.bag") as bag:
        assert bag.topics["/cam_front/compressed"].count == 2
        for m in bag.messages(raw=True):
            message = store.deserialize_cdr(m.message, m.type)
            assert bytes(store.serialize_cdr(message, m.type)) == m.message
            if m.topic == "/cam_front/compressed":
                assert (message.header.frame_id, message.format) == ("cam_front", "jpeg")
        window = [m.log_time_ns for m in bag.messages(["/tf"], T0 + 1, T0 + 200_000_000)]
    assert window == [T0 + 100_000_000]
