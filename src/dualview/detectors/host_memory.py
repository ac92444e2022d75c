"""Host memory of networks on a CPU: what is freed is kept for the next frame."""

from __future__ import annotations

import ctypes
import sys

# glibc's names for what mallopt sets (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep what this process frees; whether it could be told.

    A network allocates and frees the same feature maps for every frame. glibc hands pieces of that size back to the kernel, which
    clears them anew each time: a tenth of a frame's time. For processes that run a network on a CPU frame after frame; the process
    never shrinks then, and stays as large as its largest frame made it. Does nothing beside another allocator or system.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl
        return False
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 1 << 30), (_M_TOP_PAD, 1 << 26))
    return all(set_option(option, value) == 1 for option, value in options)
