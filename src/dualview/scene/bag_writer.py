"""Writing recordings: one `.mcap` file with ROS 2 messages, as `ros2 bag play FILE.mcap` and this package
read it.

The file is a bare rosbag2 mcap file (profile ros2, zstd chunks, chunk and message index, checksums, QoS and
type hashes beside each channel, rosbag2's own metadata record), so no folder and no metadata.yaml are needed.
Log times are the stamps.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rosbags.typesys.store import Typestore

from dualview.errors import BagError
from dualview.scene import bag_messages as make
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.message_types import message_typestore
from dualview.scene.rig import CameraSpec, Rig

_CHUNK_BYTES = (
    1 << 20
)  # small enough that reading one second doesn't decompress much else, large enough to compress
_METADATA_VERSION = 9  # rosbag2's metadata format since Jazzy; the QoS entries below are spelled in it


@dataclass
class _Channel:
    id: int
    topic: str
    type: str
    type_hash: str
    qos: list[dict[str, Any]]


def check_new_recording(path: str | Path, overwrite: bool = False, source: str | Path | None = None) -> None:
    """Raises BagError if a recording can't be written to `path`: it isn't called .mcap, is there already, or is the `source` itself; for
    commands that work for hours before they write.
    """
    path = Path(path)
    if source is not None and path.exists() and path.resolve() == Path(source).resolve():
        raise BagError(f"{path} is the recording itself: give the copy another name")
    if path.suffix != ".mcap":
        raise BagError(f"recordings are written as .mcap files: call it {path.with_suffix('.mcap')}")
    if path.exists() and not overwrite:
        raise BagError(f"{path} exists already: choose another name, remove it, or ask for it to be overwritten")


class BagWriter:
    """Writes the topics of the project's recordings (see README.md, "Recordings"); use it with `with`.

    The file appears under its own name only when the `with` block ends without an error; until then it is a
    hidden temporary file in the same folder, which is removed on failure. Raises BagError if `path` exists
    (unless `overwrite`), isn't a `.mcap` path, or can't be written. Not thread-safe.

    Messages may be written in any order of time; at equal stamps they are read back in the order written, so
    write a pose before the image that needs it. types: those that may be written, if others than dualview's own (a copy of a
    recording has the recording's: `BagReader.types`). keep_incomplete: for what can't be had again, a live recording: an error
    within the `with` block ends the file like a success, and where it can't be finished, its beginning stays as
    `NAME.incomplete.mcap`.
    """

    def __init__(
        self,
        path: str | Path,
        rig: Rig,
        overwrite: bool = False,
        types: Typestore | None = None,
        keep_incomplete: bool = False,
    ) -> None:
        self.path, self.rig = Path(path), rig
        self._keep_incomplete = keep_incomplete
        self.counts: Counter[str] = Counter()
        self._types = types or message_typestore()
        self._channels: dict[str, _Channel] = {}
        self._schemas: dict[str, int] = {}
        self._first_ns: int | None = None
        self._last_ns = 0
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        check_new_recording(self.path, overwrite)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._temporary, "wb")  # closed by close and abort
        except OSError as error:
            raise BagError(f"{self.path} can't be written: {error}") from error
        self._writer = McapWriter(
            self._file,
            chunk_size=_CHUNK_BYTES,
            compression=CompressionType.ZSTD,
            index_types=IndexType.ALL,
            enable_crcs=True,
        )
        self._writer.start(profile="ros2", library="dualview")

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or (self._keep_incomplete and self.counts):
            self.close()
        else:
            self.abort()

    def close(self) -> None:
        """Finish the file and give it its name. Raises BagError if that fails; nothing is left then, or with `keep_incomplete` what was
        written.
        """
        if self._file.closed:
            return
        try:
            self._writer.add_metadata("rosbag2", {"serialized_metadata": self._rosbag2_metadata()})
            self._writer.finish()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self.path)
        except OSError as error:
            kept = self._incomplete() if self._keep_incomplete else ""
            self.abort()
            raise BagError(f"{self.path} can't be written: {error}{kept}") from error

    def _incomplete(self) -> str:
        """Keep what was written under a name that says so; a sentence about it."""
        path = self.path.with_name(f"{self.path.stem}.incomplete.mcap")
        with contextlib.suppress(OSError):
            self._file.close()
        try:
            os.replace(self._temporary, path)
        except OSError:
            return ""
        return f". What was recorded until then is in {path}: `mcap recover` makes a whole recording of it"

    def abort(self) -> None:
        """Give up: remove what was written."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    # ---- the topics of a recording

    def static_transforms(self, stamp_ns: int, ego_from_sensor: Mapping[str, np.ndarray]) -> None:
        """`/tf_static`: rigid transforms [4, 4] (m) from sensor frames, by frame name, to the ego frame.
        Write it first."""
        self.message(
            "/tf_static", make.transforms_message(stamp_ns, self.rig.ego_frame, ego_from_sensor), stamp_ns
        )

    def ego_pose(self, stamp_ns: int, world_from_ego: np.ndarray) -> None:
        """`/tf`: the vehicle's pose [4, 4] (m) in the world frame."""
        message = make.transforms_message(
            stamp_ns, self.rig.world_frame, {self.rig.ego_frame: world_from_ego}
        )
        self.message("/tf", message, stamp_ns)

    def odometry(
        self,
        stamp_ns: int,
        world_from_ego: np.ndarray,
        linear_velocity: np.ndarray,
        angular_velocity: np.ndarray,
    ) -> None:
        """The pose [4, 4] with the twist: linear [3] m/s and angular [3] rad/s velocity along the axes of the
        ego frame."""
        frames = (self.rig.world_frame, self.rig.ego_frame)
        message = make.odometry_message(stamp_ns, *frames, world_from_ego, linear_velocity, angular_velocity)
        self.message(self.rig.odometry_topic or "/odom", message, stamp_ns)

    def image(self, camera_name: str, stamp_ns: int, jpeg: bytes) -> None:
        """A camera's JPEG, bytes as they are. Raises BagError if the rig says that the camera's topic isn't
        compressed."""
        camera = self._camera(camera_name, compressed=True)
        self.message(
            camera.image_topic, make.compressed_image_message(stamp_ns, camera.frame, jpeg), stamp_ns
        )

    def raw_image(self, camera_name: str, stamp_ns: int, pixels: np.ndarray, encoding: str = "rgb8") -> None:
        """A camera's pixels uint8 [height, width, channels]. Raises BagError if the rig says that its topic
        is compressed."""
        camera = self._camera(camera_name, compressed=False)
        self.message(
            camera.image_topic, make.raw_image_message(stamp_ns, camera.frame, pixels, encoding), stamp_ns
        )

    def camera_info(self, camera_name: str, stamp_ns: int, calibration: CameraCalibration) -> None:
        """A camera's calibration at an image's stamp."""
        camera = self.rig.camera(camera_name)
        topic = camera.camera_info_topic or f"/{camera.name}/camera_info"
        self.message(topic, make.camera_info_message(stamp_ns, camera.frame, calibration), stamp_ns)

    def points(self, topic: str, stamp_ns: int, points: np.ndarray, frame: str) -> None:
        """A LiDAR sweep: float32 [P, 4] (x, y, z in m of `frame`, intensity)."""
        self.message(topic, make.points_message(stamp_ns, frame, points), stamp_ns)

    def annotations(self, annotations: Annotations) -> None:
        """A keyframe's 3D labels, boxes in the world frame."""
        message = make.annotations_message(annotations, self.rig.world_frame)
        self.message(self.rig.annotations_topic or "/annotations", message, annotations.stamp_ns)

    def annotations_2d(
        self, camera_name: str, stamp_ns: int, annotations: Sequence[Annotation2D | tuple]
    ) -> None:
        """An image's 2D labels: (class name, score, (x min, y min, x max, y max) px, instance id) each."""
        topic = self.rig.annotations_2d_topic_of(camera_name) or f"/{camera_name}/annotations_2d"
        self.message(
            topic,
            make.annotations_2d_message(stamp_ns, self.rig.camera(camera_name).frame, annotations),
            stamp_ns,
        )

    # ---- any message

    def message(self, topic: str, message: Any, stamp_ns: int) -> None:
        """Any message of `message_types.message_class`."""
        self.write_raw(
            topic, message.__msgtype__, self._types.serialize_cdr(message, message.__msgtype__), stamp_ns
        )

    def write_raw(
        self, topic: str, type_name: str, cdr: bytes | memoryview, stamp_ns: int, latched: bool = False
    ) -> None:
        """A message in its wire form (CDR with its four-byte header), as DDS and other recordings carry it.

        type_name: "sensor_msgs/msg/Image" or "sensor_msgs/Image". latched: players shall offer the topic to late subscribers, as
        /tf_static always is. Raises BagError for a type that isn't known, or if the topic has had another type before.
        """
        channel = self._channels.get(topic) or self._add_channel(topic, type_name, latched or topic == "/tf_static")
        if channel.type != _full_name(type_name):
            raise BagError(f"topic {topic} carries {channel.type} and can't also carry {type_name}")
        try:
            self._writer.add_message(
                channel.id,
                log_time=stamp_ns,
                publish_time=stamp_ns,
                data=cdr,  # type: ignore[arg-type]  # any buffer will do, a copy isn't needed
                sequence=self.counts[topic],
            )
        except OSError as error:
            raise BagError(f"{self.path} can't be written: {error}") from error
        self.counts[topic] += 1
        self._first_ns = stamp_ns if self._first_ns is None else min(self._first_ns, stamp_ns)
        self._last_ns = max(self._last_ns, stamp_ns)

    def _camera(self, name: str, compressed: bool) -> CameraSpec:
        camera = self.rig.camera(name)
        if camera.compressed != compressed:
            is_compressed = "compressed" if camera.compressed else "raw"
            raise BagError(
                f"rig '{self.rig.name}' says that {camera.image_topic} is {is_compressed}: write it that way"
            )
        return camera

    def check_type(self, topic: str, type_name: str) -> None:
        """Raises BagError for a type that can't be written."""
        if _full_name(type_name) not in self._types.fielddefs:
            raise BagError(
                f"the message type {type_name} (topic {topic}) is not known to dualview: it can't be recorded"
            )

    def _add_channel(self, topic: str, type_name: str, latched: bool) -> _Channel:
        self.check_type(topic, type_name)
        name = _full_name(type_name)
        if name not in self._schemas:
            definition = self._types.generate_msgdef(name, ros_version=2)[0].encode()
            self._schemas[name] = self._writer.register_schema(name, SchemaEncoding.ROS2, definition)
        qos = [_qos(latched)]
        metadata = {
            "offered_qos_profiles": yaml.safe_dump(qos, default_flow_style=False, sort_keys=False).strip(),
            "topic_type_hash": self._types.hash_rihs01(name),
        }
        number = self._writer.register_channel(topic, MessageEncoding.CDR, self._schemas[name], metadata)
        self._channels[topic] = _Channel(number, topic, name, metadata["topic_type_hash"], qos)
        return self._channels[topic]

    def _rosbag2_metadata(self) -> str:
        """rosbag2's metadata.yaml, which it also keeps inside mcap files."""
        start, count = self._first_ns or 0, sum(self.counts.values())
        extent = {"starting_time": {"nanoseconds_since_epoch": start},
                  "duration": {"nanoseconds": self._last_ns - start if count else 0},
                  "message_count": count}  # fmt: skip
        topics = [
            {
                "topic_metadata": {
                    "name": c.topic, "type": c.type, "serialization_format": "cdr",
                    "offered_qos_profiles": c.qos,
                    "type_description_hash": c.type_hash,
                },
                "message_count": self.counts[c.topic],
            }
            for c in self._channels.values()
        ]  # fmt: skip
        content = {
            "version": _METADATA_VERSION, "storage_identifier": "mcap",
            "relative_file_paths": [self.path.name], **extent,
            "topics_with_message_count": topics, "compression_format": "", "compression_mode": "",
            "files": [{"path": self.path.name, **extent}], "custom_data": {"rig": self.rig.name},
            "ros_distro": "jazzy",
        }  # fmt: skip
        return yaml.dump(content, Dumper=_PlainDumper, default_flow_style=False, sort_keys=False)


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated values out instead of as YAML anchors, which rosbag2 never writes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _full_name(type_name: str) -> str:
    """ "sensor_msgs/Image" and "sensor_msgs/msg/Image" -> "sensor_msgs/msg/Image"."""
    parts = type_name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else type_name


def _qos(latched: bool) -> dict[str, Any]:
    """The QoS that a player shall offer: reliable, which serves best-effort subscribers too; latched for
    /tf_static."""
    forever = {"sec": 9223372036, "nsec": 854775807}
    return {
        "history": "keep_last", "depth": 1 if latched else 10, "reliability": "reliable",
        "durability": "transient_local" if latched else "volatile", "deadline": dict(forever),
        "lifespan": dict(forever),
        "liveliness": "automatic", "liveliness_lease_duration": dict(forever),
        "avoid_ros_namespace_conventions": False,
    }  # fmt: skip
