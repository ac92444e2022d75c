"""Build ROS 2 interface packages against ROS 2 from PyPI wheels; on a ROS machine colcon does this.

Used by setup.py and tools/bootstrap.py. Only the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COMPAT_PACKAGES = ("tf2_msgs", "vision_msgs")


class BuildError(Exception):
    """A build step failed; the message ends with the last lines of its output."""


def source_of(package: str) -> Path:
    """The folder that holds the package's CMakeLists.txt."""
    return REPOSITORY / "compat" / package if package in COMPAT_PACKAGES else REPOSITORY


def build(
    package: str, build_dir: Path, prefix: Path, python: Path, stage: Path | None = None, *options: str
) -> None:
    """Configure, build and install one package with CMake and Ninja.

    prefix: where the package will live. stage: put the files below this folder instead (as DESTDIR does), to be moved later.
    Raises BuildError.
    """
    environment = dict(os.environ, CMAKE_BUILD_PARALLEL_LEVEL=str(os.cpu_count() or 1))
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    if stage is not None:
        environment["DESTDIR"] = str(stage)
    configure = [
        "cmake", "-S", source_of(package), "-B", build_dir, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF",
        f"-DCMAKE_INSTALL_PREFIX={prefix}", f"-DPython3_EXECUTABLE={python}",
        f"-DCMAKE_PROJECT_INCLUDE={REPOSITORY / 'cmake' / 'ros_wheels.cmake'}", *options,
    ]  # fmt: skip
    for command in (configure, ["cmake", "--build", build_dir], ["cmake", "--install", build_dir]):
        command = [str(part) for part in command]
        result = subprocess.run(
            command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if result.returncode:
            tail = "\n".join(result.stdout.splitlines()[-40:])
            raise BuildError(f"building {package} failed at: {' '.join(command)}\n{tail}")


def move_tree(source: Path, target: Path) -> None:
    """Move every file below source to the same place below target; each file appears whole, or not at all."""
    for folder, _, names in os.walk(source):
        destination = target / Path(folder).relative_to(source)
        destination.mkdir(parents=True, exist_ok=True)
        for name in names:
            partial = destination / f".{name}.partial"
            shutil.copy2(Path(folder) / name, partial)
            os.replace(partial, destination / name)
