"""Children end with the demo, and what hangs or fails is named with the end of its log."""

from __future__ import annotations

import os
import time

import pytest

from dualview.demo.processes import Child, ending_all, ros_environment, wait_until
from dualview.errors import DualViewError


def child(tmp_path, *arguments: str) -> Child:
    return Child("helper", arguments, tmp_path / "helper.log", {**os.environ, "OMP_NUM_THREADS": "1"})


def test_a_child_that_fails_is_named_with_what_it_said(tmp_path):
    with ending_all() as children:
        children.append(child(tmp_path, "bag", str(tmp_path / "none.mcap")))
        with pytest.raises(DualViewError, match=r"the helper ended with status \d+[\s\S]*helper\.log"):
            wait_until(lambda: False, 60, "something", children)
        assert "none.mcap" in children[0].tail() or "usage" in children[0].tail()


def test_waiting_in_vain_says_for_what_and_the_child_is_stopped_in_order(tmp_path):
    with ending_all() as children:
        recorder = child(tmp_path, "record", str(tmp_path / "never.mcap"), "/never_published")
        children.append(recorder)
        begin = time.monotonic()
        with pytest.raises(
            DualViewError, match=r"waited 1 s in vain for a miracle\. The node says: nothing works"
        ):
            wait_until(lambda: False, 1, "a miracle", children, explain=lambda: "nothing works")
        assert time.monotonic() - begin < 5
        assert recorder.exit_status is None
    assert recorder.exit_status is not None


def test_ros_processes_meet_only_each_other():
    environment = ros_environment(77)
    assert environment["ROS_DOMAIN_ID"] == "77"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert os.environ.get("ROS_DOMAIN_ID") != "77"
