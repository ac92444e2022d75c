"""One process at a time, by lock files."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER_LOCK = ".lock"  # in a set of label maps: held by who decides what the whole set shares


@contextlib.contextmanager
def locked(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`; if another process does, call `busy`, which may raise, and wait for that process.

    The lock ends with the process, however it ends; the file may stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            busy()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
