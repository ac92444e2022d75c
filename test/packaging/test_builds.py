"""The same source builds with colcon, as on a ROS machine, and into a wheel; what they install is complete and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT_IN_PLACE = {".git", ".venv", "build", "install", "log", "out", "__pycache__"}

# Runs in the built workspace: prints where things come from, one a line.
PROBE = """
import dualview, dualview.cli, dualview.msg, sys
from dualview.resources import find_directories
from rclpy.serialization import deserialize_message, serialize_message
sample = dualview.msg.TrackedObject3DArray(objects=[dualview.msg.TrackedObject3D(track_id=5)])
assert deserialize_message(serialize_message(sample), dualview.msg.TrackedObject3DArray) == sample
print(dualview.__file__); print(dualview.cli.__file__); print(dualview.msg.__file__); print(find_directories("config")[0])
"""


def run(command: list[str], **keywords: object) -> str:
    result = subprocess.run(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **keywords
    )  # type: ignore[call-overload]
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout[-6000:]}"
    return str(result.stdout)


def build_environment() -> dict[str, str]:
    """As in a fresh shell with the environment activated: its programs first, no paths of a checkout, no mark of the wheels."""
    dropped = (
        "PYTHONPATH",
        "AMENT_PREFIX_PATH",
        "CMAKE_PREFIX_PATH",
        "COLCON_PREFIX_PATH",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE",
    )
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in dropped or ("AMENT_PREFIX_PATH" in name and on_ros())
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def on_ros() -> bool:
    """True on a machine with a ROS installation, False where ROS 2 comes from wheels."""
    return bool(os.environ.get("ROS_DISTRO"))


def tracked_files(folder: str) -> set[str]:
    return {
        str(path.relative_to(REPOSITORY / folder))
        for path in (REPOSITORY / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.parametrize("layout", [[], ["--symlink-install"]], ids=["copied", "symlinked"])
def test_colcon_build(layout: list[str], tmp_path: Path) -> None:
    wheels = (
        []
        if on_ros()
        else [f"-DCMAKE_PROJECT_INCLUDE={REPOSITORY / 'cmake' / 'ros_wheels.cmake'}", "-GNinja"]
    )
    command = [
        "colcon", "--log-base", str(tmp_path / "log"), "build", "--base-paths", str(REPOSITORY), "--packages-select", "dualview",
        "--build-base", str(tmp_path / "build"), "--install-base", str(tmp_path / "install"), *layout,
        "--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={sys.executable}", *wheels,
    ]  # fmt: skip
    output = run(command, env=build_environment(), cwd=tmp_path)
    assert "1 package finished" in output

    prefix = tmp_path / "install" / "dualview"
    share = prefix / "share" / "dualview"
    for folder in ("launch", "config", "models"):
        installed = {
            str(path.relative_to(share / folder)) for path in (share / folder).rglob("*") if path.is_file()
        }
        assert installed >= tracked_files(folder), folder
    assert {path.name for path in (share / "msg").glob("*.msg")} == {
        path.name for path in (REPOSITORY / "msg").glob("*.msg")
    }
    assert (share / "package.xml").is_file()
    package = next(prefix.glob("lib/python*/site-packages/dualview"), None) or next(
        prefix.glob("local/lib/python*/dist-packages/dualview")
    )
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert modules >= {path for path in tracked_files("src/dualview") if path.endswith(".py")}
    assert {"msg/__init__.py", "msg/_tracked_object3_d_array.py"} <= modules
    for program in (prefix / "lib" / "dualview" / "dualview_node", prefix / "bin" / "dualview"):
        assert os.access(program, os.X_OK), program
    assert (package / "cli" / "__init__.py").is_symlink() == bool(layout)

    # The installed command and modules run from the workspace, not from the checkout, once its setup file is sourced.
    script = f"source {tmp_path}/install/setup.bash && command -v dualview && dualview --version && python3 -c '{PROBE}'"
    lines = run(["bash", "-c", script], env=build_environment(), cwd=tmp_path).splitlines()
    assert lines[0] == str(prefix / "bin" / "dualview")
    assert lines[1].startswith("dualview ")
    assert all(Path(line).is_relative_to(prefix) for line in lines[2:5]), lines
    if not layout:
        assert Path(lines[5]) == share / "config"


@pytest.mark.slow
@pytest.mark.skipif(on_ros(), reason="wheels are for machines without a ROS installation")
def test_wheel_build(tmp_path: Path) -> None:
    source = tmp_path / "dualview"
    shutil.copytree(REPOSITORY, source, symlinks=True, ignore=lambda _, names: BUILT_IN_PLACE & set(names))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(tmp_path),
        str(source),
    ]
    run(command, env=build_environment(), cwd=tmp_path)
    (wheel,) = tmp_path.glob("dualview-*.whl")
    assert f"cp{sys.version_info.major}{sys.version_info.minor}" in wheel.name and "any" not in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        commands = next(archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
        metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    data = {name.split(".data/data/", 1)[1] for name in names if ".data/data/" in name}
    packages = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    expected = {
        f"share/dualview/{folder}/{name}"
        for folder in ("launch", "config", "models")
        for name in tracked_files(folder)
    }
    expected |= {f"{packages}/dualview/{name}" for name in tracked_files("src/dualview")}
    expected |= {f"{packages}/{name}/msg/__init__.py" for name in ("dualview", "tf2_msgs", "vision_msgs")}
    expected |= {
        f"share/ament_index/resource_index/packages/{name}"
        for name in ("dualview", "tf2_msgs", "vision_msgs")
    }
    expected |= {"lib/dualview/dualview_node", "lib/libdualview__rosidl_typesupport_c.so"}
    assert not expected - data
    assert "dualview = dualview.cli:main" in commands and "Provides-Extra: wheels" in metadata
