"""Files of the package are found in a checkout and in an installed prefix."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dualview.resources import checkout_directory, find_directories, share_directories

ROOT = Path(__file__).parents[1]


def test_checkout_comes_first() -> None:
    assert checkout_directory() == ROOT
    assert find_directories("config/rigs")[0] == ROOT / "config" / "rigs"


def test_prefixes_of_ros_come_before_pythons_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("overlay", "underlay", "python"):
        (tmp_path / name / "share" / "dualview").mkdir(parents=True)
    path = os.pathsep.join(str(tmp_path / name) for name in ("overlay", "absent", "underlay", "overlay"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "python"))
    found = [folder.parents[1].name for folder in share_directories()]
    assert found == ["overlay", "underlay", "python"]


def test_installed_package_finds_rigs_and_messages(tmp_path: Path) -> None:
    """Sources copied out of the checkout, data files under a prefix, as CMake installs them."""
    site, share = tmp_path / "lib", tmp_path / "share"
    shutil.copytree(
        ROOT / "src" / "dualview", site / "dualview", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "config", share / "dualview" / "config")
    shutil.copytree(ROOT / "msg", share / "dualview" / "msg")
    for package in ("tf2_msgs", "vision_msgs"):
        shutil.copytree(ROOT / "compat" / package / "msg", share / package / "msg")
    code = (
        "import dualview; from dualview.scene.rig import load_rig, known_rigs; "
        "from dualview.scene.message_types import message_class; "
        "message_class('dualview/msg/TrackedObject3DArray'); message_class('vision_msgs/msg/Detection2DArray'); "
        "print(dualview.__file__, known_rigs()['nuscenes'], len(load_rig('nuscenes').cameras))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "AMENT_PREFIX_PATH": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [
        str(site / "dualview/__init__.py"),
        str(share / "dualview/config/rigs/nuscenes.yaml"),
        "6",
    ]
