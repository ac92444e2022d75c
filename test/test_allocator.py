"""Memory that is kept isn't cleared again: counted in page faults, in a process of its own."""

import subprocess
import sys

import pytest

MEASURE = """
import ctypes, resource
from dualview.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults(size=64 << 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        place = libc.malloc(size)
        ctypes.memset(place, 1, size)
        libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
assert keep_freed_memory()
faults()
print(given_back, faults())
"""


def test_pages_are_touched_for_the_first_time_once() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc's allocator is Linux'")
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    given_back, kept = (int(word) for word in done.stdout.split())
    assert kept < 100 < given_back / 100
