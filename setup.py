"""`pip install '.[wheels]'`: CMake makes what colcon would install, and setuptools packs it into a wheel.

Everything goes into the wheel's data folder, which pip unpacks below sys.prefix: with the wheels of ROS 2 that
is the ament prefix. Messages that neither a ROS installation nor these wheels have (tf2_msgs, vision_msgs) are
built along. Everything else is in pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "tools"))

import interfaces  # noqa: E402


def on_a_ros_machine(package: str) -> bool:
    """True when a sourced ROS installation already holds the package."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    return any(prefix and (Path(prefix) / "share" / package / "package.xml").is_file() for prefix in prefixes)


class CMakeBuild(build_ext):
    """Build the interface packages and add all that CMake installs to the wheel's data files."""

    def run(self) -> None:
        build = Path(self.build_temp).resolve()
        stage = build / "stage"
        shutil.rmtree(stage, ignore_errors=True)
        compat = [package for package in interfaces.COMPAT_PACKAGES if not on_a_ros_machine(package)]
        for package in (*compat, "dualview"):
            interfaces.build(package, build / package, stage, Path(sys.executable))
        shutil.rmtree(stage / "bin", ignore_errors=True)  # pip makes the command from [project.scripts]
        for metadata in stage.glob("lib/python*/site-packages/*.egg-info"):
            shutil.rmtree(metadata)  # the wheel's own metadata says it
        files = self.distribution.data_files = list(self.distribution.data_files or [])
        for folder, _, names in os.walk(stage):
            if names:
                files.append(
                    (os.path.relpath(folder, stage), [os.path.join(folder, name) for name in sorted(names)])
                )

    def get_outputs(self) -> list[str]:
        return []


setup(
    version=ElementTree.parse(HERE / "package.xml").findtext("version"),
    # Never compiled: it only says that the wheel is for one platform and one Python.
    ext_modules=[Extension("dualview_messages", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
