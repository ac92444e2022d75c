"""The environment for ROS processes: what is added, what is left alone, and that Fast DDS takes our profile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from dualview.ros import environment

NODE = """
import rclpy, sys
rclpy.init()
node = rclpy.create_node("segment_size")
print("ready", flush=True)
sys.stdin.read()
rclpy.shutdown()
"""


def test_additions_to_an_empty_environment() -> None:
    added = environment.additions({"ROS_DISTRO": "kilted"})
    profile = Path(added["FASTDDS_DEFAULT_PROFILES_FILE"])
    assert profile.is_file() and "FASTRTPS_DEFAULT_PROFILES_FILE" not in added
    assert int(added["MALLOC_TRIM_THRESHOLD_"]) == 1_000_000_000
    if (Path(sys.prefix) / "share" / "ament_index").is_dir():
        assert added["AMENT_PREFIX_PATH"] == sys.prefix


def test_fast_dds_2_reads_the_older_variable() -> None:
    added = environment.additions({"ROS_DISTRO": "jazzy"})
    assert Path(added["FASTRTPS_DEFAULT_PROFILES_FILE"]).is_file() and "FASTDDS_DEFAULT_PROFILES_FILE" not in added


def test_nothing_is_added_where_all_is_set() -> None:
    complete = {
        "AMENT_PREFIX_PATH": f"/opt/ros/jazzy{os.pathsep}{sys.prefix}", "FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml",
        "MALLOC_TRIM_THRESHOLD_": "1", "MALLOC_MMAP_THRESHOLD_": "2",
    }  # fmt: skip
    assert environment.additions(complete) == {}


@pytest.mark.parametrize(
    "variable",
    ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_BUILTIN_TRANSPORTS"],
)
def test_a_transport_that_the_user_has_chosen_stays(variable: str) -> None:
    assert not set(environment.PROFILE_VARIABLES) & set(environment.additions({variable: "mine"}))


def test_an_overlay_keeps_its_place_before_the_wheels() -> None:
    added = environment.additions({"AMENT_PREFIX_PATH": "/workspace/install/dualview"})
    assert (
        added.get("AMENT_PREFIX_PATH", "/workspace/install/dualview").split(os.pathsep)[0]
        == "/workspace/install/dualview"
    )


def test_child_environment_leaves_its_argument_alone() -> None:
    base = {"HOME": "/home/somebody"}
    child = environment.child_environment(base)
    assert base == {"HOME": "/home/somebody"} and child["HOME"] == base["HOME"] and set(child) > set(base)


def test_segment_holds_several_raw_images_of_each_camera() -> None:
    root = ElementTree.parse(environment.image_profile()).getroot()
    sizes = [int(element.text or 0) for element in root.iter("{http://www.eprosima.com}segment_size")]
    assert sizes == [64 * 2**20] and sizes[0] >= 2 * 6 * 1600 * 900 * 3


@pytest.mark.skipif(
    not Path("/proc/self/maps").exists(), reason="looks into /proc for the shared memory of a process"
)
def test_fast_dds_uses_the_profile() -> None:
    pytest.importorskip(
        "rclpy", reason="no rclpy: source a ROS 2 installation, or run `make venv` for the wheels"
    )
    base = {name: value for name, value in os.environ.items() if name not in environment.PROFILE_VARIABLES}
    child = environment.child_environment(
        {**base, "ROS_DOMAIN_ID": "42", "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    )
    if "fastrtps" not in child.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp"):
        pytest.skip("another RMW implementation is chosen; the profile is Fast DDS's")
    process = subprocess.Popen(
        [sys.executable, "-c", NODE], env=child, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        largest, end = 0, time.monotonic() + 5
        while largest < 64 * 2**20 and time.monotonic() < end:
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            found = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*/dev/shm/fast\w+", maps, re.MULTILINE)
            largest = max([int(stop, 16) - int(start, 16) for start, stop in found], default=0)
            time.sleep(0.05)
        assert largest >= 64 * 2**20
    finally:
        process.communicate(timeout=20)
    assert process.returncode == 0
