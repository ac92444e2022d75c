"""Watches the node from outside, as any other ROS node could: what it publishes and what it says of its health."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

NODE = "/dualview_node"
RECORDED = (
    f"{NODE}/tracks",
    f"{NODE}/detections",
    f"{NODE}/markers",
    f"{NODE}/bev/image",
    f"{NODE}/debug/latency",
    "/diagnostics",
)


@dataclass
class Observer:
    """Counts of what was heard; `spin` lets messages in for a moment."""

    node: Any
    executor: Any
    stamps: set[int] = field(default_factory=set)
    track_ids: set[int] = field(default_factory=set)
    last_boxes: int = 0
    statuses: dict[str, tuple[str, dict[str, str]]] = field(
        default_factory=dict
    )  # about -> (sentence, values)
    diagnostics_count: int = 0
    last_diagnostics: float = 0.0  # time.monotonic()

    def spin(self, seconds: float = 0.1) -> None:
        """Take messages for about so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def says(self, about: str, words: str) -> bool:
        """True if the node's newest diagnostics of `about` ("frames", "camera x") contain `words`."""
        return words in self.statuses.get(about, ("", {}))[0]

    def story(self) -> str:
        """What the node says now."""
        return "; ".join(f"{about}: {sentence}" for about, (sentence, _) in self.statuses.items())

    def frame_counts(self) -> dict[str, int]:
        """The numbers in the newest diagnostics of "frames": "frames closed", "dropped: network busy", …"""
        values = self.statuses.get("frames", ("", {}))[1]
        return {key: int(value) for key, value in values.items() if value.isdigit()}

    def is_recorded(self) -> bool:
        """True if somebody besides us listens to everything that is to be recorded."""
        ours = {f"{NODE}/tracks", "/diagnostics"}
        return all(self.node.count_subscribers(topic) > (topic in ours) for topic in RECORDED)

    def take_tracks(self, message: Any) -> None:
        """`~/tracks`."""
        self.stamps.add(message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec)
        self.track_ids.update(o.track_id for o in message.objects)
        self.last_boxes = len(message.objects)

    def take_diagnostics(self, message: Any) -> None:
        """`/diagnostics`."""
        self.diagnostics_count += 1
        self.last_diagnostics = time.monotonic()
        self.statuses = {
            status.name.partition(": ")[2]: (status.message, {v.key: v.value for v in status.values})
            for status in message.status
        }


@contextmanager
def observing() -> Iterator[Observer]:
    """An observer in this process; ROS_DOMAIN_ID and the like must be set in its environment before."""
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dualview.msg import TrackedObject3DArray

    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(
        "dualview_demo", context=context, start_parameter_services=False, enable_rosout=False
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    observer = Observer(node, executor)
    node.create_subscription(TrackedObject3DArray, f"{NODE}/tracks", observer.take_tracks, 50)
    node.create_subscription(DiagnosticArray, "/diagnostics", observer.take_diagnostics, 10)
    try:
        yield observer
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
        context.try_shutdown()
