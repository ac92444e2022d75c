"""One process at a time trains in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from dualview.errors import ConfigError

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")  # what launchers call a process's number


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` against other runs; the first process of several that train together does so for all of them.

    Raises ConfigError if another run is at work there, such as one that outlived the study that began it.
    """
    if any(int(os.environ.get(name) or 0) for name in _RANKS):
        yield
        return
    try:
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ConfigError(f"{folder} can't be written to ({error.strerror}): give another folder with --out") from error
    with file:
        try:
            # Not flock, which a loader's worker would inherit and hold for a while after its run was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise ConfigError(
                f"another process is training in {folder}: wait for it or stop it, or give another folder with --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
