"""What every ROS process of ours does at its beginning and end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dualview.ros.environment import prepare_this_process


class StopRequest:
    """Turns SIGINT, SIGTERM and SIGHUP (a closed terminal, which says so twice) into a flag, so that a process ends in order; a second
    SIGINT or SIGTERM ends it at once, one that the process was told to ignore (nohup) stays ignored.
    """

    def __init__(self) -> None:
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._handle)

    def __call__(self) -> bool:
        return self.requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number != signal.SIGHUP:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.requested = True


@contextmanager
def ros_process(arguments: list[str]) -> Iterator[StopRequest]:
    """Initialises rclpy with our process environment and signal handling, and shuts it down at the end."""
    prepare_this_process()
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        yield StopRequest()
    finally:
        rclpy.try_shutdown()


@contextmanager
def plain_node(name: str, use_sim_time: bool = False) -> Iterator[Any]:
    """A node without parameter services, destroyed at the end."""
    import rclpy
    from rclpy.parameter import Parameter

    node = rclpy.create_node(
        name, start_parameter_services=False, enable_rosout=False,
        parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)],
    )  # fmt: skip
    try:
        yield node
    finally:
        node.destroy_node()
