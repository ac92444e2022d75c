"""Where the real data lies, if it is there."""

import os
from pathlib import Path

import pytest

REAL = Path(os.environ.get("DUALVIEW_REAL", Path(__file__).parents[3] / ".." / "shared" / "real"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; the test is skipped without it."""
    if not REAL.is_dir():
        pytest.skip(
            f"no real data at {REAL}: set DUALVIEW_REAL to a folder with pandaset/002 and nuscenes_keyframes"
        )
    return REAL
