"""The process environment that our ROS processes need; on a ROS machine where everything is set, nothing changes.

Fast DDS and glibc read their settings once, when a process starts or first uses them, so whoever starts a node calls
`child_environment()` for `subprocess`, and a process that is itself a node calls `prepare_this_process()` before `rclpy.init()`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

# Fast DDS 3 (Kilted and later) reads the first, Fast DDS 2 (Jazzy) the second.
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")

# Image-sized buffers are allocated and freed many times a second. glibc would hand each back to the kernel and fault its pages in
# again, which in some runs slows every publish and take several times; with these limits it keeps them.
MALLOC_SETTINGS = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "134217728"}


def share_directory() -> Path:
    """The folder that holds launch/, config/ and models/: share/dualview of an installed package, or the checkout.

    Raises FileNotFoundError when the package is not wholly installed.
    """
    package = Path(__file__).resolve().parent.parent
    candidates = [package.parent.parent]  # checkout: src/dualview -> the repository
    candidates += [parent / "share" / "dualview" for parent in package.parents if parent.name in ("lib", "local")]
    candidates += [parent.parent / "share" / "dualview" for parent in package.parents if parent.name == "lib"]
    candidates.append(Path(sys.prefix) / "share" / "dualview")
    for candidate in candidates:
        if (candidate / "config" / "fastdds_images.xml").is_file():
            return candidate
    raise FileNotFoundError(
        f"dualview's config folder is in none of {', '.join(str(c) for c in candidates)}: build the package with colcon, "
        "or run `make venv` in a checkout"
    )


def additions(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that `environment` lacks for running our nodes. What a user has set is never overridden.

    - AMENT_PREFIX_PATH: the Python prefix when unset, which is the ament prefix where ROS 2 comes from wheels.
    - The Fast DDS profile for images, when neither of its variables is set and no other transport configuration is chosen.
    - The limits of glibc's allocator; they take effect only in processes started with them.
    """
    added = {name: value for name, value in MALLOC_SETTINGS.items() if name not in environment}
    if not environment.get("AMENT_PREFIX_PATH"):
        added["AMENT_PREFIX_PATH"] = sys.prefix
    chosen = (*PROFILE_VARIABLES, "FASTDDS_BUILTIN_TRANSPORTS")
    if not any(environment.get(name) for name in chosen):
        profile = str(share_directory() / "config" / "fastdds_images.xml")
        added.update(dict.fromkeys(PROFILE_VARIABLES, profile))
    return added


def child_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `environment` (default: this process's) with `additions`, for `subprocess.Popen(…, env=…)`."""
    base = dict(os.environ if environment is None else environment)
    return {**base, **additions(base)}


def prepare_this_process() -> None:
    """Set `additions` in this process; call it before `rclpy.init()`."""
    os.environ.update(additions(os.environ))
