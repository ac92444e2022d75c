"""Files beside a drive that are larger than memory, written as their content comes; and what to say when there is no room."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from dualview.errors import BagError, disk_is_full

_HEADER_BYTES = 128  # of every .npy file of ours, however many rows it gets


class DiskFullError(BagError):
    """There is no room for what has to be written."""


def write_error(what: str, error: OSError, instead: str = "") -> BagError:
    """What to raise in place of `error`: a DiskFullError if there is no room. what: "X can't be written to Y"; instead: what else
    one can do than to make room.
    """
    if _no_room(error):
        return DiskFullError(
            f"{what}: no room left ({error.strerror}): make room or set data.cache to another disk{instead}"
        )
    return BagError(f"{what}: {error}")


class GrowingArray:
    """A .npy file [P, *row_shape] whose rows are written as they come, so that memory needn't hold them. Use it with `with`;
    np.load reads the file when that has ended without an error.

    Rows go through the file's own `write`: `ndarray.tofile`, and so np.save, report a full disk by an error without a number,
    which can't be told from others. Raises OSError if the file can't be written, ValueError for rows of another shape.
    """

    def __init__(self, path: Path, row_shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._row_shape, self._dtype = row_shape, np.dtype(dtype)
        self._count = 0
        self._file = path.open("wb")

    def __len__(self) -> int:
        """Number of rows so far."""
        return self._count

    def __enter__(self) -> GrowingArray:
        self._file.write(self._header())  # holds the place: the number of rows isn't known yet
        return self

    def append(self, rows: np.ndarray) -> None:
        """Write rows [n, *row_shape] behind the others."""
        if rows.shape[1:] != self._row_shape:
            raise ValueError(f"rows must be [n, {str(self._row_shape)[1:-1]}], got {list(rows.shape)}")
        self._file.write(rows.astype(self._dtype, copy=False).tobytes())
        self._count += len(rows)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._file.write(self._header())

    def _header(self) -> bytes:
        """The header of format 1.0, filled up to a size that doesn't depend on the number of rows."""
        description = {
            "descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False,
            "shape": (self._count, *self._row_shape),
        }  # fmt: skip
        begin = np.lib.format.magic(1, 0) + struct.pack("<H", _HEADER_BYTES - 10)
        return begin + repr(description).encode("latin1").ljust(_HEADER_BYTES - 11) + b"\n"


def reserve(file: BinaryIO, size: int) -> None:
    """Take `size` bytes (> 0) of the disk for an open, empty file, where the file system can: what doesn't fit is known before
    hours of work. Raises OSError if there is no room.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except AttributeError:  # not every system has it
        return
    except OSError as error:
        # Where the file system can't reserve, a full disk shows when the content is written.
        if _no_room(error):
            raise


def _no_room(error: OSError) -> bool:
    """EFBIG: a limit of the process or of the file system on the size of one file."""
    return disk_is_full(error) or error.errno == errno.EFBIG
