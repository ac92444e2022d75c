"""A short drive that the tests of this folder share; skipped, with the reason, where nothing can be drawn off-screen."""

import os
from collections.abc import Iterator

import pytest

from dualview.errors import DualViewError
from dualview.scene.synthetic.drive import Drive
from dualview.scene.synthetic.options import DriveOptions

OPTIONS = DriveOptions(
    seed=3,
    domain="crowded",  # many of everything to measure on
    seconds=0.4,
    quality="draft",
    image_size=(270, 480),
    cameras=("cam_front", "cam_back", "cam_back_left"),
)


def open_drive(options: DriveOptions) -> Drive:
    """A drive, or a skipped test where the machine can't draw (unless it is told that it must)."""
    try:
        return Drive(options)
    except DualViewError as error:
        if "off-screen" in str(error) or "OpenGL" in str(error) or "MuJoCo" in str(error):
            if os.environ.get("DUALVIEW_REQUIRE_GL"):
                raise
            pytest.skip(f"synthetic drives can't be drawn here: {error}")
        raise


@pytest.fixture(scope="session")
def drive() -> Iterator[Drive]:
    with open_drive(OPTIONS) as opened:
        yield opened


@pytest.fixture
def same_drive_again(drive: Drive) -> Iterator[Drive]:
    """A second drive with the same options, built anew."""
    with open_drive(OPTIONS) as opened:
        yield opened
