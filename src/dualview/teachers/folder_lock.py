"""One process at a time, by lock files."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

WORK = ".work"  # in a set of label maps: what is half done, a folder for each recording
LOCK_FILE = "lock"  # there: held by who works on that recording
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


def is_held(path: Path) -> bool:
    """Whether a process holds the lock file `path`."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:  # deleted in the meantime
        return False
    return False
