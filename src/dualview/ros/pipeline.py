"""What a configured node is made of: rig, assembler, detector and worker, with the topics at both ends."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Any

import torch
from rclpy.exceptions import InvalidTopicNameException

import dualview
from dualview.detectors.checkpoint import set_score_threshold
from dualview.detectors.session import TrackingSession
from dualview.errors import ConfigError, ImageError
from dualview.ros.health import BUSY, TOO_FEW, LiveTime, NodeHealth
from dualview.ros.inputs import ArrivalTimes, Inputs
from dualview.ros.outputs import Outputs
from dualview.ros.parameters import NodeSettings
from dualview.ros.worker import Job, NewestFrameWorker
from dualview.scene.assembler import ClosedFrame, DroppedFrame, FrameAssembler
from dualview.scene.messages import AssemblerFeed, stamp_ns
from dualview.scene.rig import load_rig

if TYPE_CHECKING:
    from rclpy.lifecycle import LifecycleNode

_CLOCKS_AGREE_MS = 60_000.0  # stamps further from the node's clock than this are of another time
_SAME_ERROR_PAUSE = 5.0  # s between log lines that say the same


class Pipeline:
    """Everything between the subscriptions and the publishers.

    Subscriptions call `_receive` in the executor's thread, which only stores; the worker's thread decodes, runs the network and
    publishes. Raises DualViewError, with a sentence, if the rig, the weights or the device can't be used.
    """

    def __init__(
        self, node: LifecycleNode, settings: NodeSettings, uuid_base: bytes, next_track_id: int
    ) -> None:
        self._node, self.settings, self._log = node, settings, node.get_logger()
        self.rig = settings.adapted_rig(load_rig(settings.rig))
        self._assembler_settings = settings.assembler_settings(self.rig)
        if settings.network_threads:
            torch.set_num_threads(settings.network_threads)
        self.detector = dualview.load(
            settings.weights, settings.device, precision=settings.precision
        )
        config = self._own_config = self.detector.config
        set_score_threshold(self.detector, config, _score_threshold(settings))
        if config.lidar is not None:
            raise ConfigError(
                f"{config.name} reads LiDAR, which the node doesn't subscribe to: give it a camera detector, and run this one "
                "on recordings (`dualview evaluate`)"
            )
        self.model_name = f"{config.name}, {self.detector.weights_description}"
        self.session = TrackingSession(
            self.detector, self._assembler_settings.min_cameras, settings.decode_workers, next_track_id
        )
        self.assembler = FrameAssembler(self.rig, self._assembler_settings)
        self._feed = AssemblerFeed(self.rig, self.assembler)
        self.health = NodeHealth(
            {c.name: c.image_topic for c in self.rig.cameras}, self._assembler_settings.camera_timeout,
            settings.max_processing_time, settings.max_consecutive_delay,
        )  # fmt: skip
        self.health.input_counts = self.assembler.counts
        self.lock = threading.Lock()  # guards `health`, which both threads touch
        self._camera_of = {c.image_topic: c.name for c in self.rig.cameras}
        self._arrivals = ArrivalTimes(self.rig.camera_names)
        self._live = LiveTime()
        self._last_image: float | None = None
        self._last_error: dict[str, float] = {}
        self._worker: NewestFrameWorker | None = None
        self.outputs = Outputs(
            node, self.rig, config.class_names, self.model_name, uuid_base, self.detector.bev_colors
        )
        try:
            self._inputs = Inputs(
                node, self.rig, settings.image_queue_depth, self._receive, self._incompatible, self._lost
            )
        except BaseException as error:
            self.outputs.destroy()
            if isinstance(error, InvalidTopicNameException):
                raise ConfigError(f"rig '{self.rig.name}' names a topic that ROS can't have: {error}") from error
            raise

    # ---- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take images from now on."""
        self._tick_clock()
        with self.lock:
            self.health.start(self._live.now)
        self._worker = NewestFrameWorker(self._process)

    def stop(self) -> None:
        """Take no more images; the frame in hand is finished, those behind it are forgotten."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self.assembler.discard()
        self._last_image = None
        self.outputs.clear_markers(self._node.get_clock().now().nanoseconds)

    def destroy(self) -> None:
        """Give everything back."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop()
        self._inputs.destroy()
        self.outputs.destroy()

    def apply(self, settings: NodeSettings) -> None:
        """Parameters that may change at any time."""
        if settings.score_threshold != self.settings.score_threshold:
            set_score_threshold(self.detector, self._own_config, _score_threshold(settings))
        self.settings = settings
        with self.lock:
            self.health.max_processing_ms, self.health.max_delay_ms = (
                settings.max_processing_time,
                settings.max_consecutive_delay,
            )

    # ---- the executor's thread ------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """A few times a second: closes frames that wait for cameras which all fell silent. Returns live time."""
        now = self._tick_clock()
        if self._worker is not None and self._last_image is not None:
            if now - self._last_image > self._assembler_settings.camera_timeout:
                self._last_image = None
                self.assembler.flush()
                self._take_closed()
        return now

    def _tick_clock(self) -> float:
        return self._live.tick(time.monotonic(), self._node.get_clock().now().nanoseconds)

    def _receive(self, topic: str, message: Any) -> None:
        camera = self._camera_of.get(topic)
        if camera is not None:
            if self._worker is None:
                return
            now = self._tick_clock()
            self._last_image = now
            self._arrivals.note(
                camera, stamp_ns(message.header.stamp), self._node.get_clock().now().nanoseconds
            )
            with self.lock:
                self.health.image(camera, now)
        self._feed.feed(topic, message)
        if self._worker is not None:
            self._take_closed()

    def _take_closed(self) -> None:
        for closed in self.assembler.take_closed():
            if isinstance(closed, DroppedFrame):
                self._drop(closed.kind, closed.detail)
                continue
            arrival = self._arrivals.last_of(closed)
            age, counter = math.nan, time.perf_counter()
            if arrival is not None:
                age, counter = (arrival.ros_ns - closed.stamp_ns) / 1e6, arrival.counter
            with self.lock:
                self.health.frames["closed"] += 1
                self.health.clock_problem = _clock_problem(age)
            if self._worker is not None:
                job = Job(closed, age if abs(age) < _CLOCKS_AGREE_MS else math.nan, counter)
                if self._worker.submit(job) is not None:
                    self._drop(BUSY, "a newer frame was ready before the network took this one")

    def _incompatible(self, camera: str, sentence: str) -> None:
        with self.lock:
            self.health.cameras[camera].qos_problem = sentence
        self._log.warning(f"camera {camera}: {sentence}")

    def _lost(self, camera: str, count: int) -> None:
        with self.lock:
            self.health.cameras[camera].lost += count

    # ---- the network's thread -------------------------------------------------------------------------------------------

    def _process(self, job: Job) -> None:
        taken = time.perf_counter()
        try:
            processed = self.session.process(job.closed, with_bev_map=self.outputs.wants_bev_map)
            begin = time.perf_counter()
            self.outputs.publish(processed, self.settings)
        except ImageError as error:
            self._drop(TOO_FEW, str(error))
            return
        except Exception as error:  # the node must outlive whatever one frame does to it
            if not self._node.context.ok():
                return
            self._failed(job.closed, error)
            return
        done = time.perf_counter()
        stages = {
            "age_at_arrival": job.age_ms,
            "assemble": 1e3 * (taken - job.arrived),
            "preprocess": 1e3 * processed.preprocess_seconds,
            "network": 1e3 * processed.network_seconds,
            "publish": 1e3 * (done - begin),
            "total": job.age_ms + 1e3 * (done - job.arrived),
        }
        if self._node.context.ok():
            self.outputs.publish_latency(processed.frame.stamp_ns, self.rig.ego_frame, stages)
        with self.lock:
            self.health.masked(processed.problems)
            self.health.published(stages, self._live.now)
            if processed.reset is not None:
                self.health.reset(processed.reset, self._live.now)
        if processed.reset is not None:
            self._log.warning(f"the tracks' memory was reset: {processed.reset}; track ids go on")

    def _failed(self, closed: ClosedFrame, error: Exception) -> None:
        sentence = f"{type(error).__name__}: {error}"
        self._drop("internal error", sentence)
        self.session.reset("an internal error")
        now = time.monotonic()
        if now - self._last_error.get(type(error).__name__, -math.inf) > _SAME_ERROR_PAUSE:
            self._last_error = {**dict(list(self._last_error.items())[-20:]), type(error).__name__: now}
            self._log.error(f"the frame at {closed.stamp_ns / 1e9:.3f} s could not be processed: {sentence}")

    def _drop(self, kind: str, detail: str) -> None:
        with self.lock:
            self.health.dropped(kind, detail, self._live.now)


def _score_threshold(settings: NodeSettings) -> float | None:
    return None if settings.score_threshold < 0 else settings.score_threshold


def _clock_problem(age_ms: float) -> str | None:
    if not abs(age_ms) >= _CLOCKS_AGREE_MS:
        return None
    return (
        f"image stamps are {abs(age_ms) / 1e3:.0f} s {'behind' if age_ms > 0 else 'ahead of'} the node's clock: "
        "set use_sim_time and play /clock for a recording, or synchronise the cameras' clocks"
    )
