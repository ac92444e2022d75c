"""Freed memory is kept: counted in page faults of a process of its own, since the setting is the process's."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from dualview.detectors.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(10):
        torch.zeros(8 << 20)  # 32 MiB, freed at once
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    # ROS processes of ours, tests among them, set the allocator by the environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's allocator isn't glibc's")
def test_what_is_freed_is_not_cleared_anew() -> None:
    assert page_faults("keep") < 100
    assert page_faults("leave") > 1000
