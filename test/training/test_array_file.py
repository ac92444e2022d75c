"""Arrays that are written row by row read like those of np.save, and a full disk is one."""

import errno
from pathlib import Path

import numpy as np
import pytest

from dualview.errors import BagError
from dualview.training.array_file import DiskFullError, GrowingArray, reserve, write_error


@pytest.mark.parametrize("counts", [(), (0,), (3, 0, 5), (1,) * 12345])
@pytest.mark.parametrize("mode", [None, "r"])
def test_np_load_reads_what_was_appended(counts: tuple[int, ...], mode: str | None, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(sum(counts), 4)).astype(np.float32)
    with GrowingArray(tmp_path / "rows.npy", (4,), np.float32) as file:
        for start, count in zip(np.cumsum([0, *counts]), counts, strict=False):
            assert len(file) == start
            file.append(rows[start : start + count])
    read = np.load(tmp_path / "rows.npy", mmap_mode=mode)
    assert read.dtype == np.float32 and np.array_equal(read, rows)


def test_rows_of_another_shape_are_refused_and_others_converted(tmp_path: Path) -> None:
    with GrowingArray(tmp_path / "rows.npy", (2,), np.float32) as file:
        file.append(np.arange(8.0).reshape(2, 4).T[:, ::-1])
        with pytest.raises(ValueError, match=r"rows must be \[n, 2"):
            file.append(np.zeros((3, 4)))
    assert np.array_equal(np.load(tmp_path / "rows.npy"), np.arange(8.0).reshape(2, 4).T[:, ::-1])


def test_a_full_disk_says_so_by_its_number(tmp_path: Path) -> None:
    """np.save loses the number: it then looks like any other fault."""
    full = tmp_path / "full.npy"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, GrowingArray(full, (4,), np.float32) as file:
        file.append(np.zeros((100_000, 4), np.float32))
    assert caught.value.errno == errno.ENOSPC
    error = write_error("the sweeps can't be written to /cache", caught.value, ", or go without")
    assert isinstance(error, DiskFullError)
    assert str(error) == (
        "the sweeps can't be written to /cache: no room left (No space left on device): make room or set data.cache to another disk, "
        "or go without"
    )
    other = write_error("they can't be written", PermissionError(errno.EACCES, "Permission denied"))
    assert isinstance(other, BagError) and not isinstance(other, DiskFullError)
    assert "Permission denied" in str(other)


def test_room_is_reserved_where_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "file").open("wb") as file:
        reserve(file, 100_000)
        assert (tmp_path / "file").stat().st_size == 100_000
        monkeypatch.delattr("os.posix_fallocate")
        reserve(file, 200_000)
