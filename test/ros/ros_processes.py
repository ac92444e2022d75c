"""Real processes over DDS for tests: start them, listen to them, wait for what they say, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from dualview.msg import TrackedObject3DArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile

from dualview.ros import environment

NODE = "/dualview_node"


class Process:
    """`python -m dualview …` (or a script) with its output in a file."""

    def __init__(self, arguments: list[str], log: Path, stdin: bool = False) -> None:
        self.log = log
        self._file = open(log, "wb")
        env = environment.child_environment({**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"})
        self.popen = subprocess.Popen(
            [sys.executable, *arguments], env=env, stdout=self._file, stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for_output(self, text: str, timeout: float = 60.0) -> None:
        wait_until(lambda: text in self.output or self.popen.poll() is not None, timeout, lambda: self.output)
        assert text in self.output, self.output

    def wait(self, timeout: float = 60.0) -> int:
        return self.popen.wait(timeout)

    def stop(self, number: int = signal.SIGINT, timeout: float = 30.0) -> int:
        """End it with a signal; returns its exit status. A process that doesn't listen is killed, and the test fails by its status."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self._file.close()
        return int(self.popen.returncode)


def node_process(
    log: Path, rig: Path, weights: Path, sim_time: bool = False, **parameters: object
) -> Process:
    """A dualview_node with a low threshold, so that random weights give tracks."""
    values = {"score_threshold": 0.0, "network_threads": 1, **parameters}
    overrides = [a for name, value in values.items() for a in ("-p", f"{name}:={_yaml(value)}")]
    simulated = ["--use-sim-time"] if sim_time else []
    return Process(
        [
            "-m",
            "dualview",
            "run",
            "--rig",
            str(rig),
            "--weights",
            str(weights),
            "--device",
            "cpu",
            *simulated,
            "--ros-args",
            *overrides,
        ],
        log,
    )


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def wait_until(condition: Callable[[], Any], timeout: float, explain: Callable[[], str] = str) -> Any:
    """Poll until `condition()` is true; returns its value. Fails with `explain()` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout:.0f} s: {explain()}")


class Listener:
    """A node in this process that keeps what it hears on tracks and diagnostics (bounded)."""

    def __init__(self, kept: int = 2000) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            "listener", context=self.context, start_parameter_services=False, enable_rosout=False
        )
        self.tracks: deque[TrackedObject3DArray] = deque(maxlen=kept)
        self.diagnostics: deque[DiagnosticArray] = deque(maxlen=kept)
        self.listen(TrackedObject3DArray, f"{NODE}/tracks", self.tracks)
        self.listen(DiagnosticArray, "/diagnostics", self.diagnostics)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def listen(
        self, kind: Any, topic: str, into: deque, depth: int = 200, qos: QoSProfile | None = None
    ) -> None:
        """Also keep the messages of another topic."""
        self.node.create_subscription(kind, topic, lambda message: into.append(message), qos or depth)

    def close(self) -> None:
        self.context.try_shutdown()
        self._thread.join()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except (ExternalShutdownException, KeyboardInterrupt):
            pass

    # ---- diagnostics ----------------------------------------------------------------------------------------------------

    def statuses(self) -> dict[str, Any]:
        """The newest DiagnosticStatus by what it is about ("frames", "camera cam0")."""
        newest = self.diagnostics[-1] if self.diagnostics else DiagnosticArray()
        return {status.name.split(": ", 1)[1]: status for status in newest.status}

    def says(self, about: str, words: str, level: int | None = None) -> bool:
        """True if the newest diagnostics of `about` contain `words` at `level`."""
        status = self.statuses().get(about)
        return status is not None and words in status.message and (level is None or status.level[0] == level)

    def value(self, about: str, key: str) -> str | None:
        status = self.statuses().get(about)
        return next((v.value for v in status.values if v.key == key), None) if status else None

    def wait_says(self, about: str, words: str, level: int | None = None, timeout: float = 20.0) -> None:
        wait_until(
            lambda: self.says(about, words, level),
            timeout,
            lambda: f"'{words}' of {about}; said was {self.story()}",
        )

    def story(self) -> str:
        """What the node says now, for messages of failing tests."""
        return "; ".join(f"{name} [{s.level[0]}] {s.message}" for name, s in self.statuses().items())

    def wait_tracks(
        self, condition: Callable[[TrackedObject3DArray], bool], count: int = 1, timeout: float = 20.0
    ) -> None:
        """Wait for `count` new track messages that fulfil a condition."""
        seen = len(self.tracks)
        mark = self.tracks[-1] if self.tracks else None

        def enough() -> bool:
            messages = list(self.tracks)
            fresh = (
                messages[messages.index(mark) + 1 :] if mark is not None and mark in messages else messages
            )
            return sum(condition(m) for m in fresh) >= count

        wait_until(enough, timeout, lambda: f"{count} such tracks after {seen} messages; {self.story()}")
