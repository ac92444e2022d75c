"""The process environment that our ROS processes need; on a ROS machine where everything is set, nothing changes.

Fast DDS and glibc read their settings once, when a process starts or first uses them, so whoever starts a node calls
`child_environment()` for `subprocess`, and a process that is itself a node calls `prepare_this_process()` before `rclpy.init()`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dualview.resources import find_directories

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

_FAST_DDS_2 = ("humble", "iron", "jazzy")  # ROS distributions

# Image-sized buffers are allocated and freed many times a second. glibc would hand each back to the kernel and fault its pages in
# again, which in some runs slows every publish and take several times; with these limits it keeps them.
MALLOC_SETTINGS = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "134217728"}


def image_profile() -> Path:
    """The Fast DDS profile that comes with the package. Raises FileNotFoundError when the package is not wholly installed."""
    for directory in find_directories("config"):
        if (directory / "fastdds_images.xml").is_file():
            return directory / "fastdds_images.xml"
    raise FileNotFoundError(
        "dualview's config/fastdds_images.xml is not installed: build the package with colcon or pip, or run `make venv` in a checkout"
    )


def profile_variable(environment: Mapping[str, str]) -> str:
    """The variable that the Fast DDS at hand reads its profile from; the other one would only make version 3 complain."""
    distribution = environment.get("ROS_DISTRO")
    if distribution is None:
        try:
            old = version("ros-fastdds").startswith("2.")  # the wheels'
        except PackageNotFoundError:
            old = False
    else:
        old = distribution in _FAST_DDS_2
    return PROFILE_VARIABLES[1] if old else PROFILE_VARIABLES[0]


def additions(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that `environment` lacks for running our nodes. What a user has set is never overridden.

    - AMENT_PREFIX_PATH: Python's own prefix joins it where that holds an ament index, as it does where ROS 2 comes from wheels.
    - The Fast DDS profile for images, when neither of its variables is set and no other transport configuration is chosen.
    - The limits of glibc's allocator; they take effect only in processes started with them.
    """
    added = {name: value for name, value in MALLOC_SETTINGS.items() if name not in environment}
    prefixes = [prefix for prefix in environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if prefix]
    if sys.prefix not in prefixes and (Path(sys.prefix) / "share" / "ament_index").is_dir():
        added["AMENT_PREFIX_PATH"] = os.pathsep.join([*prefixes, sys.prefix])
    if not any(environment.get(name) for name in (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")):
        added[profile_variable(environment)] = str(image_profile())
    return added


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `environment` (default: this process's) with `additions`, for `subprocess.Popen(…, env=…)`."""
    base = dict(os.environ if environment is None else environment)
    return {**base, **additions(base)}


def prepare_this_process() -> None:
    """Set `additions` in this process; call it before `rclpy.init()`."""
    os.environ.update(additions(os.environ))
