"""Plays a recording into ROS in its own process: original types and bytes, `/clock`, at a chosen rate.

Messages go out as the CDR bytes that were recorded, so nothing is converted; ROS 1 recordings are turned into CDR by the reader.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock

from dualview.errors import BagError
from dualview.scene.bag_reader import BagMessage, BagReader

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher

_SETTLE = 0.3  # s for latched messages to arrive before images come


@dataclass(frozen=True)
class PlaySettings:
    """rate: bag seconds a second. start, duration: the part to play, s from the bag's beginning. clock_hz: of /clock, wall time."""

    rate: float = 1.0
    loops: int = 1  # 0: for ever
    start: float = 0.0
    duration: float | None = None
    clock_hz: float = 100.0
    topics: tuple[str, ...] = ()  # empty: all that the recording has


@dataclass
class PlayReport:
    """What a player did. lateness_ms: how much later than planned each message went out (bounded sample)."""

    messages: int = 0
    passes: int = 0
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)  # topic -> why
    lateness_ms: list[float] = field(default_factory=list)

    def sentence(self) -> str:
        """The report for a reader."""
        late = np.asarray(self.lateness_ms or [0.0])
        return (
            f"played {self.messages} messages in {self.seconds:.1f} s; late p50 {np.percentile(late, 50):.1f} ms, "
            f"p99 {np.percentile(late, 99):.1f} ms, most {late.max():.1f} ms"
        )


def message_type(name: str) -> Any:
    """The rclpy class of "sensor_msgs/msg/Image". Raises BagError if its package isn't installed."""
    package, _, kind = name.replace("/msg/", "/").partition("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError) as error:
        raise BagError(f"message type {name} is not installed here") from error


def qos_for(topic: str, latched: bool = False) -> QoSProfile:
    """Reliable, which serves best-effort subscribers too; latched where asked for; deep for what is latched, and for /tf, which comes in
    bursts.
    """
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    depth = 100 if latched or topic == "/tf" else 10
    return QoSProfile(
        depth=depth,
        history=HistoryPolicy.KEEP_LAST,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=durability,
    )


class BagPlayer:
    """Publishes a recording's topics through `node`. The node needn't be spun."""

    def __init__(self, node: Node, bag: BagReader, settings: PlaySettings | None = None) -> None:
        self._node, self._bag, self.settings = node, bag, settings or PlaySettings()
        self.report = PlayReport()
        self._publishers: dict[str, Publisher[Any]] = {}
        for topic, (kind, _) in bag.topics.items():
            if topic == "/clock" or (self.settings.topics and topic not in self.settings.topics):
                continue
            try:
                self._publishers[topic] = node.create_publisher(message_type(kind), topic, qos_for(topic, topic in bag.latched))
            except BagError as error:
                self.report.skipped[topic] = str(error)
        self._clock = node.create_publisher(Clock, "/clock", 10)

    @property
    def topics(self) -> list[str]:
        """What is published, without /clock."""
        return list(self._publishers)

    def missing(self, topics: Collection[str]) -> list[str]:
        """Which of `topics` nobody has matched: ours without a subscriber, others without a publisher."""
        return [
            topic for topic in topics
            if not (self._publishers[topic].get_subscription_count() if topic in self._publishers
                    else self._node.count_publishers(topic))
        ]  # fmt: skip

    def wait_for(self, topics: Collection[str], timeout: float, stop: Callable[[], bool]) -> list[str]:
        """Wait until all of `topics` are matched; returns those that weren't within `timeout` seconds."""
        end = time.monotonic() + timeout
        while (missing := self.missing(topics)) and time.monotonic() < end and not stop():
            time.sleep(0.05)
        return missing

    def play(self, stop: Callable[[], bool]) -> PlayReport:
        """Play until the end, or until `stop()` says True. Raises BagError if the recording is damaged."""
        for (
            topic
        ) in self._publishers:  # what the reader must prepare for a type is done before the clock runs
            next(self._bag.messages([topic], raw=True), None)
        begin = time.perf_counter()
        while not stop() and (self.settings.loops == 0 or self.report.passes < self.settings.loops):
            self._pass(stop)
            self.report.passes += 1
        self.report.seconds = time.perf_counter() - begin
        return self.report

    def _pass(self, stop: Callable[[], bool]) -> None:
        settings = self.settings
        start = self._bag.start_ns + round(settings.start * 1e9)
        end = None if settings.duration is None else start + round(settings.duration * 1e9)
        latched = [topic for topic in sorted(self._bag.latched) if topic in self._publishers]
        self._tick(start)
        if settings.start > 0 and latched:  # as a reader does that begins in the middle
            newest: dict[str, BagMessage] = {}
            for message in self._bag.messages(latched, stop_ns=start, raw=True):
                if message.topic == "/tf_static":  # each may hold other transforms
                    self._publish(message)
                else:
                    newest[message.topic] = message
            for message in newest.values():
                self._publish(message)
        settling = self.report.passes == 0 and bool(latched)
        if settling and settings.start > 0:
            time.sleep(_SETTLE)
            settling = False
        origin, next_clock = time.perf_counter(), start
        clock_step = round(1e9 * settings.rate / settings.clock_hz)
        for message in self._bag.messages(self._publishers, start_ns=start, stop_ns=end, raw=True):
            if settling and message.topic not in latched:
                settling = False
                time.sleep(_SETTLE)
                origin += _SETTLE
            while next_clock <= message.log_time_ns:
                self._sleep_until(origin + (next_clock - start) / 1e9 / settings.rate, stop)
                if stop():
                    return
                self._tick(next_clock)
                next_clock += clock_step
            planned = origin + (message.log_time_ns - start) / 1e9 / settings.rate
            self._sleep_until(planned, stop)
            self._publish(message)
            if len(self.report.lateness_ms) < 1_000_000:
                self.report.lateness_ms.append(1e3 * max(time.perf_counter() - planned, 0.0))

    def _publish(self, message: BagMessage) -> None:
        self._publishers[message.topic].publish(bytes(message.message))
        self.report.messages += 1

    def _tick(self, now_ns: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, 1_000_000_000)
        self._clock.publish(message)

    @staticmethod
    def _sleep_until(moment: float, stop: Callable[[], bool]) -> None:
        while (left := moment - time.perf_counter()) > 0 and not stop():
            time.sleep(min(left, 0.1))
