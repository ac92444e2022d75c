"""A run whose files can't be written any more ends with a sentence, not with a traceback."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from dualview.errors import ConfigError, DualViewError, disk_is_full


class CheckpointError(DualViewError):
    """A file of a run can't be written."""


def reason_not_written(error: Exception) -> str | None:
    """Why a file couldn't be written, in words; None if `error` says nothing of writing.

    torch's, safetensors' and TensorBoard's writers wrap the operating system's error in their own.
    """
    number = getattr(error, "errno", None)
    if disk_is_full(error) or "No space left" in str(error):
        return "the disk is full"
    if number == errno.EFBIG or "File too large" in str(error):
        return "files can't grow any more (a limit of the file system or of the process)"
    return str(error) if isinstance(error, OSError) and number in (errno.EIO, errno.EROFS, errno.EACCES) else None


def make_folder(folder: Path) -> None:
    """The folder of a run, with those above it, if it isn't there. Raises ConfigError where it can't be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} can't be made ({error.strerror}): give another folder with --out") from error


@contextlib.contextmanager
def named_write_errors(folder: Path) -> Iterator[None]:
    """Whatever a run writes into `folder` besides checkpoints: logs, pictures. Raises CheckpointError in place of errors of writing."""
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, DualViewError) else reason_not_written(error)
        if reason is None:
            raise
        raise CheckpointError(
            f"the run can't write to {folder}: {reason}. Its last checkpoint is untouched: make room and go on with --resume"
        ) from error
