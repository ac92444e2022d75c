"""Memory that a network gives back and asks for again, step after step.

A step on a CPU takes and returns gigabytes in large pieces. glibc hands each of them back to the system, which clears every
page again when it is next touched: on a virtual machine that is a good part of the step.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_NEVER = 2**31 - 1
_AT_ONCE = 2**28


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for its next use. True if its C library can (glibc); others stay as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {_MMAP_THRESHOLD: _NEVER, _TRIM_THRESHOLD: _NEVER, _TOP_PAD: _AT_ONCE}
    return all([mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings.items()])
