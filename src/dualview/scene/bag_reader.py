"""Reading recordings: rosbag2 folders and files (mcap, sqlite3) and ROS 1 bags, without ROS, in order of log
time."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from rosbags import rosbag1
from rosbags.interfaces import Connection, MessageDefinitionFormat, Nodetype, QosDurability
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from dualview.errors import BagError
from dualview.scene.bag_files import open_recording
from dualview.scene.frame import Annotations
from dualview.scene.message_types import message_typestore
from dualview.scene.messages import annotations_from_message
from dualview.scene.rig import Rig, known_rigs, load_rig

# ROS 1 names of types that ROS 2 calls otherwise; the layout is the same
_RENAMED = {"tf/msg/tfMessage": "tf2_msgs/msg/TFMessage"}
_IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


class BagTopic(NamedTuple):
    """Type ("sensor_msgs/msg/Image") and number of messages of a topic."""

    type: str
    count: int  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class BagMessage:
    """One message. `message` has the attributes of the ROS 2 message, arrays as NumPy's; with raw=True it is
    its CDR bytes."""

    topic: str
    type: str
    log_time_ns: int
    message: Any


class BagReader:
    """A recording. Use it with `with`, or call `close`.

    topics: name -> (type, count). latched: topics that late subscribers were offered too (transient local). start_ns, end_ns:
    log time of the first and the last message (0 in an empty recording); duration: seconds between them. Messages of ROS 1 bags
    look like those of ROS 2.

    Raises BagError, at opening and while reading, that says what is wrong with the recording and how to mend
    it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._readers = open_recording(self.path)
        connections = [c for reader in self._readers for c in reader.connections]
        self._types = _typestore_for(
            connections, ros1=any(isinstance(r, rosbag1.Reader) for r in self._readers)
        )
        self.topics: dict[str, BagTopic] = {}
        self.latched = frozenset({"/tf_static"} | {c.topic for c in connections if _is_latched(c)})
        for connection in sorted(connections, key=lambda c: c.topic):
            before = self.topics.get(connection.topic)
            count = connection.msgcount + (before.count if before else 0)
            self.topics[connection.topic] = BagTopic(_ros2_name(connection.msgtype), count)
        filled = [reader for reader in self._readers if reader.message_count]
        self.start_ns = min((reader.start_time for reader in filled), default=0)
        past_end_ns = max(
            (reader.end_time for reader in filled), default=1
        )  # in rosbags, one past the last message
        self.end_ns = past_end_ns - 1
        self.duration = (self.end_ns - self.start_ns) / 1e9

    def __enter__(self) -> BagReader:
        return self

    @property
    def types(self) -> Typestore:
        """Every message type that the recording or dualview defines. It is shared: don't register into it."""
        return self._types

    @property
    def undefined(self) -> dict[str, str]:
        """Topic -> type, of those that neither the recording nor dualview defines: their bytes can't be read, nor copied."""
        return {name: topic.type for name, topic in self.topics.items() if topic.type not in self._types.fielddefs}

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        for reader in self._readers:
            reader.close()
        self._readers = []

    def messages(
        self,
        topics: Collection[str] | None = None,
        start_ns: int | None = None,
        stop_ns: int | None = None,
        raw: bool = False,
    ) -> Iterator[BagMessage]:
        """Messages with start_ns <= log time < stop_ns, in order of log time (at equal times in the order
        recorded).

        topics: those to read, None for all; topics that the recording lacks are passed over (`check_rig`
        names them). The index is used: only the parts of the file that hold wanted messages are read. raw:
        CDR bytes instead of messages. Raises BagError if the file turns out to be damaged, naming the place.
        """
        streams = []
        for reader in self._readers:
            wanted = [c for c in reader.connections if topics is None or c.topic in topics]
            if wanted:
                streams.append(reader.messages(wanted, start=start_ns, stop=stop_ns))
        count, last_ns = 0, self.start_ns
        merged = (
            heapq.merge(*streams, key=lambda item: item[1])
            if len(streams) > 1
            else iter(streams[0] if streams else ())
        )
        while True:
            try:
                item = next(merged, None)
                if item is None:
                    return
                connection, log_time_ns, data = item
                message = self._decode(connection, data, raw)
            except BagError:
                raise
            except Exception as error:  # damaged data can raise nearly anything in the parsers
                raise BagError(
                    f"{self.path} is damaged after {(last_ns - self.start_ns) / 1e9:.3f} s of "
                    f"{self.duration:.3f} s "
                    f"({error or type(error).__name__}); {count} messages before it were read. "
                    "`mcap recover` or `ros2 bag reindex` may save the rest"
                ) from error
            yield BagMessage(connection.topic, _ros2_name(connection.msgtype), log_time_ns, message)
            count, last_ns = count + 1, log_time_ns

    def annotations(self, rig: Rig) -> list[Annotations]:
        """All 3D labels of the recording in order of time, boxes in the rig's world frame; empty if it has
        none.

        Labels index into the rig's class names (objects of other classes are left out), or into all classes
        of the recording if the rig names none; the rig's class map comes first. Raises BagError if the boxes are in another frame than the
        rig's world frame.
        """
        if rig.annotations_topic is None:
            return []
        names = rig.class_names or tuple(sorted({o.class_name for m in self._labelled(rig) for o in m.objects}))
        return [annotations_from_message(message, names) for message in self._labelled(rig)]

    def _labelled(self, rig: Rig) -> Iterator[Any]:
        """The messages with 3D labels, one at a time: a tensor's row takes a tenth of what a message's object takes."""
        for message in (m.message for m in self.messages([str(rig.annotations_topic)])):
            if message.header.frame_id != rig.world_frame:
                raise BagError(
                    f"{rig.annotations_topic} of {self.path} is in frame '{message.header.frame_id}', but the world_frame of "
                    f"rig '{rig.name}' is "
                    f"'{rig.world_frame}': set world_frame in the rig file, or choose the rig of the recording"
                )
            for labelled in message.objects if rig.class_map else ():
                labelled.class_name = rig.class_map.get(labelled.class_name, labelled.class_name)
            yield message

    def check_rig(self, rig: Rig) -> tuple[str, ...]:
        """What the recording lacks of what the rig promises, a sentence each; empty if all is there.

        Raises BagError if none of the rig's image topics is in the recording, naming what is there and which
        known rig would fit.
        """
        problems = []
        missing = [camera for camera in rig.cameras if camera.image_topic not in self.topics]
        if len(missing) == len(rig.cameras):
            raise BagError(
                f"{self.path} has none of the image topics of rig '{rig.name}' "
                f"({', '.join(c.image_topic for c in missing)}). "
                f"It has {', '.join(self.topics) or 'no topics at all'}. {self._rig_hint()}"
            )
        problems += [f"camera '{c.name}': no topic {c.image_topic}" for c in missing]
        for camera in rig.cameras:
            topic = self.topics.get(camera.image_topic)
            if topic is not None and topic.type not in _IMAGE_TYPES:
                problems.append(
                    f"camera '{camera.name}': {camera.image_topic} carries {topic.type}, "
                    "which is not an image"
                )
            if camera.calibration is None and camera.camera_info_topic not in self.topics:
                told = (
                    f"no topic {camera.camera_info_topic}"
                    if camera.camera_info_topic
                    else "no camera_info topic"
                )
                problems.append(f"camera '{camera.name}': {told} and no calibration in the rig file")
        if "/tf" not in self.topics:
            problems.append(f"no topic /tf: the pose of '{rig.ego_frame}' in '{rig.world_frame}' is unknown")
        return tuple(problems)

    def _rig_hint(self) -> str:
        for name in known_rigs():
            if any(camera.image_topic in self.topics for camera in load_rig(name).cameras):
                return f"Rig '{name}' fits."
        return "Write a rig file for it: copy config/rigs/template.yaml"

    def _decode(self, connection: Connection, data: bytes, raw: bool) -> Any:
        name = _ros2_name(connection.msgtype)
        if isinstance(connection.owner, rosbag1.Reader):
            data = bytes(self._types.ros1_to_cdr(data, name))
        if raw:
            return data
        if name not in self._types.fielddefs:
            raise BagError(
                f"topic {connection.topic} of {self.path} carries {name}, which neither the recording "
                "nor dualview defines"
            )
        return self._types.deserialize_cdr(data, name)


def topic_table(bag: BagReader) -> str:
    """The topics of a recording as lines of text: count, rate, type and name."""
    lines = []
    for topic, (kind, count) in bag.topics.items():
        rate = f"{(count - 1) / bag.duration:7.2f} Hz" if count > 1 and bag.duration > 0 else " " * 10
        lines.append(f"{count:8d} {rate}  {kind:38s} {topic}")
    return "\n".join(lines)


def _ros2_name(type_name: str) -> str:
    return _RENAMED.get(type_name, type_name)


def _typestore_for(connections: list[Connection], ros1: bool) -> Typestore:
    """Our types, replaced or completed by the definitions that the recording itself carries.

    The recording knows best how its messages were laid out. ROS 1 definitions that say the same as ours but
    for `Header.seq` and the case of names are not taken over, so that ROS 1 messages get the attributes of
    ROS 2.
    """
    ours = message_typestore()
    own: dict[str, Any] = {}
    for definition, name in {c.msgdef: c.msgtype for c in connections}.items():
        if definition.format == MessageDefinitionFormat.MSG:
            own.update(get_types_from_msg(definition.data, name))
        elif definition.format == MessageDefinitionFormat.IDL:
            for part in definition.data.split("=" * 80 + "\n"):
                if part:
                    own.update(
                        get_types_from_idl(part.split("\n", 1)[1] if part.startswith("IDL: ") else part)
                    )
    differing = {
        name: fields
        for name, fields in own.items()
        if not (ros1 and name == "std_msgs/msg/Header")
        and _layout(fields) != _layout(ours.fielddefs.get(name))
    }
    if not differing:
        return ours
    store = get_typestore(Stores.EMPTY)
    store.register({**ours.fielddefs, **differing})
    return store


def _layout(definition: Any) -> Any:
    """Names (in lower case: ROS 1 has K, ROS 2 has k) and types of the fields of a message."""
    if definition is None:
        return None
    return [(name.lower(), _type_layout(kind)) for name, kind in definition[1]]


def _type_layout(kind: Any) -> Any:
    node, content = kind
    if node == Nodetype.BASE:
        # ROS 1's char and byte are one byte each, as ROS 2's are
        return "base", {"char": "uint8", "byte": "octet"}.get(content[0], content[0])
    if node == Nodetype.NAME:
        return "name", content
    return int(node), _type_layout(content[0]), content[1]


def _is_latched(connection: Connection) -> bool:
    profiles = getattr(connection.ext, "offered_qos_profiles", None) or ()
    return bool(profiles) and all(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in profiles)
