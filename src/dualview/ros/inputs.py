"""The node's subscriptions, made from the rig, and when which image came in."""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from dualview.scene.assembler import ClosedFrame
from dualview.scene.rig import Rig

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import Subscription

# As tf2_ros listens.
TF_QOS = QoSProfile(depth=100, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
STATIC_TF_QOS = QoSProfile(
    depth=100, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)  # fmt: skip


def image_qos(depth: int) -> QoSProfile:
    """Best effort, which matches reliable and best-effort publishers alike; only the newest images are kept."""
    return QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


class Inputs:
    """Subscribes to every topic of a rig and hands (topic as the rig names it, message) to `receive`.

    on_incompatible(camera, sentence): a publisher's QoS doesn't fit. on_lost(camera, count): the middleware lost images.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        queue_depth: int,
        receive: Callable[[str, Any], None],
        on_incompatible: Callable[[str, str], None],
        on_lost: Callable[[str, int], None],
    ) -> None:
        self._node = node
        self._subscriptions: list[Subscription] = []
        with contextlib.ExitStack() as undo:  # nobody else knows of those that were made
            undo.callback(self.destroy)
            quiet = SubscriptionEventCallbacks(
                use_default_callbacks=False
            )  # each event handler costs time in every spin
            for camera in rig.cameras:
                kind = CompressedImage if camera.compressed else Image
                take = functools.partial(receive, camera.image_topic)
                arguments = (kind, camera.image_topic, take, image_qos(queue_depth))
                events = SubscriptionEventCallbacks(
                    incompatible_qos=functools.partial(self._incompatible, on_incompatible, camera.name),
                    message_lost=functools.partial(self._lost, on_lost, camera.name),
                    use_default_callbacks=False,
                )
                try:
                    subscription = node.create_subscription(*arguments, event_callbacks=events)
                except UnsupportedEventTypeError:  # not every middleware has these events
                    subscription = node.create_subscription(*arguments, event_callbacks=quiet)
                self._subscriptions.append(subscription)
                if camera.camera_info_topic:
                    topic = camera.camera_info_topic
                    take = functools.partial(receive, topic)
                    self._subscriptions.append(
                        node.create_subscription(
                            CameraInfo, topic, take, image_qos(queue_depth), event_callbacks=quiet
                        )
                    )
            for topic, qos in (("/tf", TF_QOS), ("/tf_static", STATIC_TF_QOS)):
                take = functools.partial(receive, topic)
                self._subscriptions.append(node.create_subscription(TFMessage, topic, take, qos))
            undo.pop_all()

    def destroy(self) -> None:
        """Unsubscribe from everything."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    @staticmethod
    def _incompatible(report: Callable[[str, str], None], camera: str, event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        report(camera, f"a publisher's QoS doesn't fit ({policy}): offer at least best effort and volatile")

    @staticmethod
    def _lost(report: Callable[[str, int], None], camera: str, event: Any) -> None:
        report(camera, int(event.total_count_change))


class Arrival(NamedTuple):
    """When an image came in: by the node's clock (ns) and by `time.perf_counter` (s)."""

    ros_ns: int
    counter: float


class ArrivalTimes:
    """Remembers when the last images of each camera came in."""

    def __init__(self, cameras: tuple[str, ...], kept: int = 64) -> None:
        self._arrivals: dict[str, deque[tuple[int, Arrival]]] = {name: deque(maxlen=kept) for name in cameras}

    def note(self, camera: str, stamp_ns: int, ros_ns: int) -> None:
        """An image with this stamp arrived now."""
        self._arrivals[camera].append((stamp_ns, Arrival(ros_ns, time.perf_counter())))

    def last_of(self, closed: ClosedFrame) -> Arrival | None:
        """When the last of the frame's images came in; None if it has none or it is long ago."""
        found = [
            arrival
            for camera in closed.cameras if camera.image is not None
            for stamp, arrival in self._arrivals[camera.name] if stamp == camera.image.stamp_ns
        ]  # fmt: skip
        return max(found, key=lambda arrival: arrival.counter, default=None)
