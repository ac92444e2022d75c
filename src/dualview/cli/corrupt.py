"""Corrupt the images of a recording as RoboBEV does (camera crash, frame lost, color quantization, motion blur,
brightness, low light, fog, snow), or draw a sheet with all of them."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

HELP = "a copy of a recording with corrupted images, or a picture sheet of all corruptions"

_NARROWEST, _WIDEST = 40, 4000  # px


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES

    parser.add_argument("bag", type=Path, metavar="BAG", help="the recording")
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument(
        "--out", type=Path, metavar="OUT.mcap", help="the copy; all but its images is the same"
    )
    result.add_argument(
        "--sheet", type=Path, metavar="FILE", help=".jpg or .png: all corruptions of one frame"
    )
    parser.add_argument("--corruption", choices=CORRUPTIONS, help="which one (with --out)")
    parser.add_argument(
        "--severity", choices=SEVERITIES, default="moderate", help="with --out; default moderate"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same corruption (default 0)"
    )
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument("--camera", help="camera of the sheet (default: the rig's anchor)")
    parser.add_argument(
        "--at", type=float, default=0.0, metavar="S", help="time of the sheet's frame, s from the start"
    )
    parser.add_argument(
        "--width", type=int, default=400, metavar="PX", help="width of a picture in the sheet (default 400)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.mcap if it exists")


def run(arguments: argparse.Namespace) -> int:
    """Corrupt or draw, and say what was written."""
    from dualview.cli._copies import tell_left_out
    from dualview.drawing.corruption_sheet import corruption_sheet, frame_images
    from dualview.drawing.video import write_picture
    from dualview.errors import ConfigError
    from dualview.evaluation.run import fitting_rig
    from dualview.scene.corruptions.corruption import Corruption
    from dualview.scene.corruptions.recording import corrupt_recording

    if arguments.seed < 0:
        raise ConfigError(f"--seed {arguments.seed}: a seed is a whole number from 0 on")
    if arguments.sheet:
        _check_sheet(arguments)
    rig = fitting_rig(arguments.bag, arguments.rig)
    if arguments.sheet:
        images = frame_images(arguments.bag, rig, arguments.at)
        camera = rig.camera(arguments.camera or str(rig.anchor)).name
        sheet = corruption_sheet(images, camera, arguments.seed, arguments.width)
        try:
            write_picture(arguments.sheet, sheet)
        except OSError as error:
            raise ConfigError(f"--sheet {arguments.sheet} can't be written ({error.strerror or error}): name another file") from error
        print(arguments.sheet)
        return 0
    if arguments.corruption is None:
        raise ConfigError("--out needs a --corruption: fog, for instance; --help lists all")
    corruption = Corruption(arguments.corruption, arguments.severity, arguments.seed)
    count = corrupt_recording(arguments.bag, arguments.out, rig, corruption, arguments.overwrite, _progress())
    tell_left_out(arguments.bag)
    print(
        f"{arguments.out}: {count} images, {corruption.name}, {corruption.severity}, seed {corruption.seed}"
    )
    return 0


def _check_sheet(arguments: argparse.Namespace) -> None:
    """Raises ConfigError for a sheet that can't be drawn."""
    from dualview.errors import ConfigError

    if arguments.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise ConfigError(f"--sheet {arguments.sheet}: the file must end in .jpg or .png")
    if not 0.0 <= arguments.at < math.inf:
        raise ConfigError(f"--at {arguments.at:g}: a time is a number of seconds from the start, 0 or more")
    if not _NARROWEST <= arguments.width <= _WIDEST:
        raise ConfigError(f"--width {arguments.width}: a picture is {_NARROWEST} to {_WIDEST} px wide")


def _progress() -> Callable[[int], None] | None:
    def show(done: int) -> None:
        if done % 10 == 0:
            print(f"\r{done} images", end="", file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else None
