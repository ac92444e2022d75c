"""The node's publishers: one processed frame in, all topics out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import MarkerArray

from dualview.detectors.bev_colors import BevColors
from dualview.detectors.session import ProcessedFrame
from dualview.msg import BevMap, Latency, TrackedObject3DArray
from dualview.ros import conversions as convert
from dualview.ros.bev_image import BevPainter
from dualview.ros.markers import MarkerMaker
from dualview.ros.parameters import NodeSettings
from dualview.ros.track_life import ExistenceFilter
from dualview.scene.rig import Rig

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

RESULT_QOS = QoSProfile(
    depth=5,
    history=HistoryPolicy.KEEP_LAST,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.VOLATILE,
)


@dataclass(frozen=True)
class OutputTopic:
    """A topic that the node publishes: its name under the node, its type and its QoS."""

    name: str
    type: Any
    qos: QoSProfile


TOPICS = (
    OutputTopic("~/tracks", TrackedObject3DArray, RESULT_QOS),
    OutputTopic("~/detections", Detection3DArray, RESULT_QOS),
    OutputTopic("~/markers", MarkerArray, RESULT_QOS),
    OutputTopic("~/bev/features", BevMap, qos_profile_sensor_data),
    OutputTopic("~/bev/image", Image, qos_profile_sensor_data),
    OutputTopic("~/debug/latency", Latency, qos_profile_sensor_data),
)


class Outputs:
    """Publishes what a detector saw. What nobody subscribes to isn't made, the tracks excepted."""

    def __init__(
        self,
        node: LifecycleNode,
        rig: Rig,
        class_names: tuple[str, ...],
        model_name: str,
        uuid_base: bytes,
        bev_colors: BevColors | None = None,
    ) -> None:
        """bev_colors: of the checkpoint, for the picture of its BEV map."""
        self._node, self._rig = node, rig
        self._class_names, self._model_name = class_names, model_name
        self._publishers = {t.name: node.create_lifecycle_publisher(t.type, t.name, t.qos) for t in TOPICS}
        self._existence = ExistenceFilter()
        self._markers = MarkerMaker()
        self._painter = BevPainter(model_name, bev_colors)
        self._uuid_base = uuid_base

    @property
    def wants_bev_map(self) -> bool:
        """True while somebody listens to the BEV map or its picture: else it needn't leave the network's device."""
        return self.is_wanted("~/bev/features") or self.is_wanted("~/bev/image")

    def publish(self, processed: ProcessedFrame, settings: NodeSettings) -> None:
        """All topics of one frame, the latency excepted."""
        frame, output, rig = processed.frame, processed.output, self._rig
        if processed.reset is not None:
            self._existence.clear()
        count = settings.max_objects
        ego_boxes = output.tracks[:count]
        in_world = settings.output_frame == "world"
        world_boxes = convert.boxes_in_frame(ego_boxes, frame.world_from_ego_anchor)
        track_ids = ego_boxes.track_id.tolist()
        tracks = convert.TrackSet(
            stamp_ns=frame.stamp_ns,
            frame_id=rig.world_frame if in_world else rig.ego_frame,
            boxes=world_boxes if in_world else convert.boxes_in_frame(ego_boxes, None),
            age=output.age[:count],
            camera_count=output.camera_count[:count],
            existence=self._existence.update(
                frame.stamp_ns, track_ids, ego_boxes.score.tolist(), settings.existence_time_constant
            ),
            class_names=self._class_names,
            uuid_base=self._uuid_base,
        )
        mask = frame.camera_mask.tolist()
        self._publishers["~/tracks"].publish(
            convert.tracks_message(tracks, self._model_name, frame.camera_names, mask)
        )
        if self.is_wanted("~/detections"):
            self._publishers["~/detections"].publish(convert.detections_message(tracks))
        self._markers.trail_length, self._markers.lifetime = settings.trail_length, settings.marker_lifetime
        self._markers.follow(frame.stamp_ns, track_ids, world_boxes.center)
        if self.is_wanted("~/markers"):
            self._publishers["~/markers"].publish(self._markers.make(tracks, rig.world_frame))
        if output.bev is not None and self.is_wanted("~/bev/features"):
            message = convert.bev_message(output.bev, frame.stamp_ns, rig.ego_frame, settings.bev_encoding)
            self._publishers["~/bev/features"].publish(message)
        if output.bev is not None and self.is_wanted("~/bev/image"):
            picture = convert.image_message(self._painter.paint(output.bev), frame.stamp_ns, rig.ego_frame)
            self._publishers["~/bev/image"].publish(picture)

    def publish_latency(self, stamp_ns: int, frame_id: str, stages: dict[str, float]) -> None:
        """`~/debug/latency`, ms by stage."""
        self._publishers["~/debug/latency"].publish(
            Latency(header=convert.header_message(stamp_ns, frame_id), **stages)
        )

    def clear_markers(self, stamp_ns: int) -> None:
        """Take everything off RViz's screen."""
        self._publishers["~/markers"].publish(self._markers.clear(stamp_ns, self._rig.world_frame))

    def is_wanted(self, topic: str) -> bool:
        """True if somebody subscribes to it."""
        return self._publishers[topic].get_subscription_count() > 0

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = {}
