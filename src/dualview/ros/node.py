"""`dualview_node`: a lifecycle node around the pipeline.

configure loads rig and weights and makes the topics, activate begins to take images, deactivate stops, cleanup gives everything back.
With the parameter `autostart` (default) it configures and activates by itself.
"""

from __future__ import annotations

import os
import platform
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from dualview.detectors.host_memory import keep_freed_memory
from dualview.errors import ConfigError, DualViewError
from dualview.ros.declared import DeclaredParameters
from dualview.ros.diagnostics import DiagnosticsSchedule, diagnostics_message
from dualview.ros.health import Level, Report
from dualview.ros.parameters import NodeSettings
from dualview.ros.pipeline import Pipeline
from dualview.ros.process import ros_process

_TICK = 0.1  # s


class DualViewNode(LifecycleNode):
    """Cameras in, tracked boxes and BEV maps out. Topics, QoS and parameters: README.md."""

    def __init__(self, **options: object) -> None:
        super().__init__("dualview_node", **options)  # type: ignore[arg-type]
        self.pipeline: Pipeline | None = None
        self._problem: str | None = None  # why configuring failed
        self._active = False
        self._uuid_base = os.urandom(8)
        self._next_track_id = 0
        self._declared = DeclaredParameters(self, lambda: self.pipeline is None, self._apply)
        self._schedule = DiagnosticsSchedule()
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # also while simulated time stands still
        self._timer = self.create_timer(_TICK, self._tick, clock=steady)
        self._start_timer = None
        if self._declared.settings().autostart:
            self._start_timer = self.create_timer(0.0, self._autostart, clock=steady)

    # ---- lifecycle ------------------------------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load what the parameters name. A DualViewError is logged and fails the transition; the node lives on, unconfigured."""
        try:
            if self._declared.problems:
                raise ConfigError("; ".join(self._declared.problems.values()))
            settings = self._declared.settings()
            self.pipeline = Pipeline(self, settings, self._uuid_base, self._next_track_id)
        except DualViewError as error:
            self._problem = str(error)
        except Exception as error:
            self._problem = f"{type(error).__name__}: {error}"
        else:
            self._problem = None
            names = ", ".join(self.pipeline.rig.camera_names)
            self.get_logger().info(
                f"configured: {self.pipeline.model_name} on {self.pipeline.detector.device}; rig "
                f"'{self.pipeline.rig.name}' with {names}"
            )
            return super().on_configure(state)
        self.get_logger().error(f"configuring failed: {self._problem}")
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to take images."""
        result = super().on_activate(state)
        if self.pipeline is not None:
            self.pipeline.start()
            self._active = True
            self.get_logger().info("active: waiting for images")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop taking images; calibrations and transforms are still followed."""
        self._active = False
        if self.pipeline is not None:
            self.pipeline.stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give topics and weights back. Track ids go on from where they were if the node is configured again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, from any state."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: go back to unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self) -> None:
        """Orderly end of the process: take boxes off the screens, stop the thread, destroy the node."""
        self._timer.cancel()
        if self._active:
            self.trigger_deactivate()
        self._release()
        self.destroy_node()

    def _release(self) -> None:
        self._active = False
        if self.pipeline is not None:
            self.pipeline.destroy()
            self._next_track_id = self.pipeline.session.next_track_id
            self.pipeline = None

    def _autostart(self) -> None:
        if self._start_timer is not None:
            self.destroy_timer(self._start_timer)
            self._start_timer = None
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _apply(self, settings: NodeSettings) -> None:
        if self.pipeline is not None:
            self.pipeline.apply(settings)

    # ---- diagnostics ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        reports = self._reports()
        if self._schedule.is_due(reports, time.monotonic()):
            stamp = self.get_clock().now().nanoseconds
            self._diagnostics.publish(diagnostics_message(reports, stamp, self.get_name(), platform.node()))

    def _reports(self) -> list[Report]:
        if self.pipeline is None:
            if self._problem:
                return [Report("state", Level.ERROR, f"not configured: {self._problem}")]
            return [Report("state", Level.WARN, "not configured yet")]
        pipeline = self.pipeline
        now = pipeline.tick()
        values = {
            "model": pipeline.model_name,
            "device": str(pipeline.detector.device),
            "rig": pipeline.rig.name,
        }
        if not self._active:
            return [Report("state", Level.WARN, "inactive: activate the node to take images", values)]
        for camera in pipeline.rig.cameras:
            health = pipeline.health.cameras[camera.name]
            if health.received == 0:
                health.topic_problem = self._topic_problem(camera.image_topic, camera.compressed)
        with pipeline.lock:
            return [Report("state", Level.OK, "active", values), *pipeline.health.reports(now)]

    def _topic_problem(self, topic: str, compressed: bool) -> str | None:
        """Why nothing may arrive on an image topic; asked only while nothing has."""
        publishers = self.get_publishers_info_by_topic(self.resolve_topic_name(topic))
        if not publishers:
            return "nobody publishes it"
        wanted = "sensor_msgs/msg/CompressedImage" if compressed else "sensor_msgs/msg/Image"
        types = sorted({p.topic_type for p in publishers})
        if wanted not in types:
            return (
                f"it carries {', '.join(types)}, but the rig says {wanted}: set `compressed` in the rig file"
            )
        return None


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM. `arguments`: as ROS passes them, default `sys.argv`."""
    keep_freed_memory()
    with ros_process(sys.argv if arguments is None else arguments) as stop:
        node: DualViewNode | None = None
        executor = SingleThreadedExecutor()  # for images measured faster than the multi-threaded one
        try:
            node = DualViewNode()
            executor.add_node(node)
            while rclpy.ok() and not stop():
                executor.spin_once(timeout_sec=0.2)
        except (KeyboardInterrupt, ExternalShutdownException):
            pass
        finally:
            if node is not None:
                executor.remove_node(node)
                node.close()
            executor.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
