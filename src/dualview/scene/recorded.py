"""What a recording holds besides images: poses over its whole length, LiDAR sweeps, and the tracks that a node published."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dualview.errors import BagError, DualViewError, TransformError
from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_messages import points_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.messages import annotations_from_message, stamp_ns, transform_from_message
from dualview.scene.rig import Rig
from dualview.scene.transform_buffer import TransformBuffer

TRACKS_TYPE = "dualview/msg/TrackedObject3DArray"


@dataclass(frozen=True)
class RecordedTracks:
    """The tracks of one frame as a node published them: boxes in the world frame (centre float64), best score first."""

    stamp_ns: int
    boxes: Boxes3D
    class_names: tuple[str, ...]
    model_name: str
    missing_cameras: tuple[str, ...]


@dataclass(frozen=True)
class LidarSweep:
    """One sweep of one LiDAR: points float32 [P, 4] (x, y, z, intensity), m, world frame relative to `origin` [3] (m)."""

    topic: str
    stamp_ns: int
    points: np.ndarray
    origin: np.ndarray


def read_transforms(bag: BagReader) -> TransformBuffer:
    """All transforms of a recording, for look-ups at any time in it. Broken ones are left out."""
    buffer = TransformBuffer(history_s=None)
    for message in bag.messages(["/tf", "/tf_static"]):
        for transform in message.message.transforms:
            try:
                parent, child, stamp, matrix = transform_from_message(transform)
                buffer.add(parent, child, stamp, matrix, static=message.topic == "/tf_static")
            except (ValueError, DualViewError):
                continue
    return buffer


def tracks_topic(bag: BagReader, rig: Rig, topic: str | None = None) -> str:
    """The topic with a node's tracks: the one given, or the only one of that type that isn't the rig's labels.

    Raises BagError when there is none or more than one, naming what is there.
    """
    found = [t for t, about in bag.topics.items() if about.type == TRACKS_TYPE and t != rig.annotations_topic]
    if topic is not None:
        if topic in bag.topics:
            return topic
        raise BagError(
            f"{bag.path} has no topic {topic}; topics with tracks in it: {', '.join(found) or 'none'}"
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise BagError(f"{bag.path} has tracks on {', '.join(found)}: say which with --tracks-topic")
    raise BagError(
        f"{bag.path} has no topic of type {TRACKS_TYPE} besides labels: record the node's output with `dualview record`"
    )


def read_tracks(bag: BagReader, rig: Rig, topic: str | None = None) -> list[RecordedTracks]:
    """All frames of tracks in a recording, in order of stamps; a frame published twice is taken once.

    Raises BagError if they aren't in the rig's world frame.
    """
    topic = tracks_topic(bag, rig, topic)
    messages = [m.message for m in bag.messages([topic])]
    frames = sorted({m.header.frame_id.lstrip("/") for m in messages} - {rig.world_frame})
    if frames:
        raise BagError(
            f"{topic} of {bag.path} is in frame '{frames[0]}', not in the world frame '{rig.world_frame}' of rig '{rig.name}': "
            "run the node with output_frame:=world and the same rig"
        )
    names = tuple(sorted({o.class_name for m in messages for o in m.objects}))
    by_stamp = {}
    for message in messages:
        labels = annotations_from_message(message, names)
        by_stamp[labels.stamp_ns] = RecordedTracks(
            labels.stamp_ns, labels.boxes, names, message.model_name, tuple(message.missing_cameras)
        )
    return [by_stamp[stamp] for stamp in sorted(by_stamp)]


def read_bev_images(bag: BagReader) -> dict[int, np.ndarray]:
    """Stamp (ns) -> uint8 [Y, X, 3]: the pictures of BEV maps that a node published (topics ending in /bev/image)."""
    topics = [
        t
        for t, about in bag.topics.items()
        if t.endswith("/bev/image") and about.type == "sensor_msgs/msg/Image"
    ]
    images = {}
    for message in bag.messages(topics) if topics else ():
        image = message.message
        if image.encoding == "rgb8":
            rows = np.frombuffer(memoryview(image.data), np.uint8).reshape(image.height, -1)[
                :, : 3 * image.width
            ]
            images[stamp_ns(image.header.stamp)] = rows.reshape(image.height, image.width, 3).copy()
    return images


class LidarSweeps:
    """LiDAR sweeps of a recording beside a walk through it: `near(stamp)` with rising stamps reads each sweep once.

    `left_out` of those read so far (`read`) can't be used, the last of them because of `reason`.
    """

    def __init__(self, bag: BagReader, rig: Rig, transforms: TransformBuffer) -> None:
        self.read = self.left_out = 0
        self.reason = ""
        self._rig, self._transforms = rig, transforms
        topics = [t for t in rig.lidar_topics if t in bag.topics]
        self._messages: Iterator[LidarSweep] = self._sweeps(bag, topics)
        self._recent: deque[LidarSweep] = deque(maxlen=4 * max(len(topics), 1))

    def near(self, stamp: int, within_s: float = 0.08) -> list[LidarSweep]:
        """Each LiDAR's sweep nearest to `stamp` (ns), at most `within_s` away; empty if there are none."""
        limit = round(within_s * 1e9)
        while not self._recent or self._recent[-1].stamp_ns < stamp + limit:
            sweep = next(self._messages, None)
            if sweep is None:
                break
            self._recent.append(sweep)
        nearest: dict[str, LidarSweep] = {}
        for sweep in sorted(self._recent, key=lambda s: -abs(s.stamp_ns - stamp)):
            nearest[sweep.topic] = sweep
        return [s for s in nearest.values() if abs(s.stamp_ns - stamp) <= limit]

    def _sweeps(self, bag: BagReader, topics: list[str]) -> Iterator[LidarSweep]:
        if not topics:
            return
        for message in bag.messages(topics):
            stamp = stamp_ns(message.message.header.stamp)
            self.read += 1
            try:
                pose = self._transforms.lookup(self._rig.world_frame, message.message.header.frame_id, stamp)
                points = points_from_message(message.message)
            except (TransformError, ValueError) as error:
                self.left_out, self.reason = self.left_out + 1, f"{message.topic}: {error}"
                continue
            points = points[np.isfinite(points[:, :3]).all(1)]
            points[:, :3] = points[:, :3] @ pose[:3, :3].T.astype(np.float32)
            yield LidarSweep(message.topic, stamp, points, pose[:3, 3])
