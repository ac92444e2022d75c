"""Shared by the tests of ROS processes: one DDS domain of their own, a small drive, and the smallest detector."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ros_detector import save_smallest_detector
from ros_processes import Listener, Process

from dualview.ros import environment


@pytest.fixture(scope="session", autouse=True)
def ros_domain() -> Iterator[None]:
    """A domain that depends on the process, so that test runs beside each other don't meet; nor do they meet a demo's, or those that
    other tests name.
    """
    added = {"ROS_DOMAIN_ID": str(1 + os.getpid() % 40), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    environment.prepare_this_process()
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_smallest_detector(tmp_path_factory.mktemp("weights") / "smallest.safetensors")


@pytest.fixture
def started() -> Iterator[Callable[[Process], Process]]:
    """Registers processes, so that they end with the test."""
    processes: list[Process] = []

    def register(process: Process) -> Process:
        processes.append(process)
        return process

    yield register
    for process in processes:
        process.stop()


@pytest.fixture
def listener(ros_domain: None) -> Iterator[Listener]:
    heard = Listener()
    yield heard
    heard.close()
