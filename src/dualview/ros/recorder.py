"""Records topics into an mcap file in its own process, as raw bytes."""

from __future__ import annotations

import functools
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from dualview.errors import BagError
from dualview.ros.player import message_type
from dualview.scene.bag_writer import BagWriter

if TYPE_CHECKING:
    from rclpy.node import Node

_DEPTH = 200
_MOST_EARLY = 256_000_000  # bytes of messages that wait for simulated time
ENDLESS = ("/diagnostics", "/rosout")  # never fall silent, so they don't count as a sign that things go on


class BagRecorder:
    """Subscribes to `topics` as soon as somebody publishes them, and writes what comes. Call `discover` now and then.

    Log times are the node's clock at arrival (simulated time with use_sim_time, as it should be for a replay). What comes before
    simulated time has begun waits for it, for a log that begins in 1970 can't be played.
    """

    def __init__(self, node: Node, writer: BagWriter, topics: Collection[str]) -> None:
        self._node, self._writer = node, writer
        self.waiting = sorted({node.resolve_topic_name(topic) for topic in topics})
        self.recording: dict[str, str] = {}  # topic -> type
        self.refused: dict[str, str] = {}  # topic -> why
        self.last_message: float | None = None  # time.monotonic(); ENDLESS topics don't count
        self._early: list[tuple[str, str, bytes]] = []
        self._early_bytes = 0
        self._latched: set[str] = set()

    def discover(self) -> list[str]:
        """Subscribe to topics that have appeared; returns their names."""
        if not self.waiting:
            return []
        types = dict(self._node.get_topic_names_and_types())
        found = [topic for topic in self.waiting if topic in types and self._node.count_publishers(topic)]
        for topic in found:
            self.waiting.remove(topic)
            try:
                self._subscribe(topic, types[topic][0])
            except BagError as error:
                self.refused[topic] = str(error)
        return found

    def finish(self) -> None:
        """Write what still waits for a clock that never began, with the machine's time."""
        self._write_early(time.time_ns())

    def _subscribe(self, topic: str, kind: str) -> None:
        self._writer.check_type(topic, kind)
        publishers = self._node.get_publishers_info_by_topic(topic)
        reliable = all(p.qos_profile.reliability == ReliabilityPolicy.RELIABLE for p in publishers)
        latched = all(p.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in publishers)
        qos = QoSProfile(
            depth=_DEPTH, history=HistoryPolicy.KEEP_LAST,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched and publishers else DurabilityPolicy.VOLATILE,
        )  # fmt: skip
        self._node.create_subscription(
            message_type(kind), topic, functools.partial(self._take, topic, kind), qos, raw=True
        )
        self.recording[topic] = kind
        if latched and publishers:
            self._latched.add(topic)

    def _take(self, topic: str, kind: str, data: Any) -> None:
        if topic not in ENDLESS:
            self.last_message = time.monotonic()
        now = self._node.get_clock().now().nanoseconds
        self._early.append((topic, kind, bytes(data)))
        self._early_bytes += len(data)
        if now or self._early_bytes > _MOST_EARLY:
            self._write_early(now or time.time_ns())

    def _write_early(self, now_ns: int) -> None:
        early, self._early, self._early_bytes = self._early, [], 0
        for topic, kind, data in early:
            self._writer.write_raw(topic, kind, data, now_ns, topic in self._latched)
