"""Make synthetic drives: streets, traffic, six cameras, a LiDAR and all labels, as recordings (rosbag2 mcap)."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "synthetic drives -> recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview synth OUT.mcap --seed N --seconds S --rig nuscenes`."""
    parser.add_argument(
        "output", metavar="OUT", help="the recording to write (.mcap); with --count, a folder"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the world and everything in it (default %(default)s); the same seed makes the same bag",
    )
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the drive (default %(default)s)"
    )
    parser.add_argument(
        "--rig", default="nuscenes", help="vehicle layout: nuscenes, pandaset or waymo (default %(default)s)"
    )
    parser.add_argument(
        "--domain",
        default="default",
        help="look of the world: default, shifted (also called city-b), overcast or crowded (default %(default)s)",
    )
    parser.add_argument(
        "--image-size",
        metavar="WxH",
        type=_size,
        help="size of the pictures (default 800x450); intrinsics follow",
    )
    parser.add_argument(
        "--camera-rate",
        metavar="HZ",
        type=float,
        default=10.0,
        help="images a second of each camera (default %(default)s)",
    )
    parser.add_argument(
        "--annotation-rate",
        metavar="HZ",
        type=float,
        help="labelled instants a second, 0 for none (default: every set of images)",
    )
    parser.add_argument(
        "--lidar-rate",
        metavar="HZ",
        type=float,
        default=10.0,
        help="LiDAR sweeps a second, 0 for none (default %(default)s)",
    )
    parser.add_argument("--quality", choices=("draft", "standard", "fine"), default="standard",
                        help="draft: no shadows; standard: shadows; fine: smooth edges too, about half as long again")  # fmt: skip
    parser.add_argument("--jpeg-quality", type=int, default=92, help="30 to 100 (default %(default)s)")
    parser.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="make N drives, seeds SEED to SEED+N-1, in the folder OUT; drives that are there are kept",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace recordings that exist")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Make the drives and say what is in them."""
    from dualview.errors import ConfigError
    from dualview.scene.synthetic.options import DriveOptions

    if arguments.count is not None and arguments.count < 1:
        raise ConfigError(f"--count must be 1 or more, not {arguments.count}")
    for offset in range(arguments.count or 1):
        options = DriveOptions(
            arguments.seed + offset, arguments.seconds, arguments.rig, arguments.domain, arguments.image_size, arguments.camera_rate,
            arguments.camera_rate if arguments.annotation_rate is None else arguments.annotation_rate, arguments.lidar_rate,
            arguments.quality, arguments.jpeg_quality,
        )  # fmt: skip
        path = Path(arguments.output)
        if arguments.count is not None:
            path = path / f"{options.rig}-{options.domain}-{options.seed:05d}.mcap"
            if path.exists() and not arguments.overwrite:
                print(f"{path}: is there already")
                continue
        _make(options, path, arguments.overwrite, arguments.quiet)
    return 0


def _make(options: object, path: Path, overwrite: bool, quiet: bool) -> None:
    from tqdm import tqdm

    from dualview.errors import BagError
    from dualview.scene.synthetic.drive import Drive
    from dualview.scene.synthetic.options import DriveOptions

    assert isinstance(options, DriveOptions)
    if path.exists() and not overwrite:
        raise BagError(f"{path} exists already: choose another name, remove it, or say --overwrite")
    if path.suffix != ".mcap":
        raise BagError(
            f"recordings are .mcap files: call it {path.with_suffix('.mcap')}, or give --count to name a folder"
        )
    with Drive(options) as drive:
        total = len(drive.instants())
        summary = drive.write(
            path, overwrite, lambda sets: tqdm(sets, path.name, total, unit="set", disable=quiet or None)
        )
    print(summary)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 800x450")
    return int(height), int(width)
