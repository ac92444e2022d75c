"""The set-up: quick when all is done, and plain about what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "tools" / "bootstrap.sh"


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT)], env=environment, text=True, capture_output=True, timeout=120)


def path_with_only(folder: Path, *programs: str) -> str:
    """A PATH whose one folder holds just these programs."""
    folder.mkdir()
    for program in programs:
        (folder / program).symlink_to(shutil.which(program) or f"/usr/bin/{program}")
    return str(folder)


def test_second_call_returns_at_once() -> None:
    sys.path.insert(0, str(REPOSITORY / "tools"))
    try:
        import bootstrap
    finally:
        sys.path.pop(0)
    packages = bootstrap.package_inputs()
    if bootstrap.read_stamp() != {"packages": packages, "interfaces": bootstrap.interface_inputs(packages)}:
        pytest.skip("this environment was not made by `make venv`, or its inputs have changed since")
    start = time.perf_counter()
    result = run(dict(os.environ))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert time.perf_counter() - start < 2.0


def test_missing_tools_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    path = path_with_only(tmp_path / "bin", "sh", "dirname", "gcc")
    python = str(Path(sys.executable).resolve())
    result = run({"PATH": path, "PYTHON": python, "DUALVIEW_VENV": str(tmp_path / "venv")})
    assert result.returncode == 1
    line = next(line for line in result.stderr.splitlines() if "apt-get install" in line)
    assert {"g++", "cmake", "make"} <= set(line.split()) and "gcc" not in line.split()
    assert not (tmp_path / "venv").exists()


def test_python_of_a_wrong_version_is_refused_in_one_sentence(tmp_path: Path) -> None:
    result = run({"PATH": path_with_only(tmp_path / "bin", "sh", "dirname", "false"), "PYTHON": "false"})
    assert result.returncode == 1
    assert "3.11, 3.12 or 3.13" in result.stderr and "PYTHON=" in result.stderr
