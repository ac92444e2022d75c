"""Turn a dataset's drive into a recording (rosbag2 mcap) with images, calibrations, tf, odometry, LiDAR and
labels."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualview.scene.rig import Rig

HELP = "a drive of PandaSet, nuScenes or Argoverse 2 -> a recording"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview convert pandaset DIR OUT.mcap`, `dualview convert nuscenes DATAROOT --scene S OUT.mcap`,
    `dualview convert argoverse2 LOG… OUT`."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    warning = (
        "A PandaSet sequence -> a recording. PandaSet stores sweeps and labels as Python pickles, which can "
        "run code when they are read: name only folders from a source that you trust. Nothing outside "
        "the folder is opened."
    )
    pandaset = datasets.add_parser("pandaset", help="a PandaSet sequence", description=warning)
    pandaset.add_argument("directory", help="the sequence's folder, with camera/, lidar/ and annotations/")
    pandaset.add_argument("--frames", metavar="A:B", type=_frames, help="only frames A to B-1 (default: all)")
    about = "A nuScenes scene -> a recording, keyframes and everything between them."
    nuscenes = datasets.add_parser("nuscenes", help="a nuScenes scene", description=about)
    nuscenes.add_argument(
        "dataroot", help="nuScenes' data root, with samples/, sweeps/ and the tables' folder"
    )
    nuscenes.add_argument(
        "--version", help="folder of the tables, e.g. v1.0-mini (default: the only one there)"
    )
    nuscenes.add_argument("--scene", required=True, help="name of the scene, e.g. scene-0061")
    about = (
        "Logs of Argoverse 2's sensor data set -> recordings: ring cameras, LiDAR, poses, and labels where there are any. "
        "Needs pyarrow (pip install pyarrow)."
    )
    argoverse = datasets.add_parser(
        "argoverse2", help="logs of Argoverse 2's sensor data set", description=about
    )
    argoverse.add_argument(
        "logs", nargs="+", metavar="LOG", help="a log's folder, with sensors/ and calibration/"
    )
    for command in (pandaset, nuscenes):
        command.add_argument("output", metavar="OUT.mcap", help="the recording to write")
    argoverse.add_argument(
        "output", metavar="OUT", help="the recording (.mcap) of a single log, or a folder for one a log"
    )
    for command in (pandaset, nuscenes, argoverse):
        command.add_argument("--rig", help="rig name or file for topics and frames (default: the dataset's)")
        command.add_argument("--overwrite", action="store_true", help="replace recordings that exist")


def run(arguments: argparse.Namespace) -> int:
    """Convert and print what was written and what was passed over."""
    from dualview.scene.rig import load_rig

    rig = load_rig(arguments.rig) if arguments.rig else None
    if arguments.dataset == "argoverse2":
        return _convert_logs(arguments, rig)
    if arguments.dataset == "pandaset":
        from dualview.scene.convert.pandaset import convert_pandaset

        summary = convert_pandaset(
            arguments.directory, arguments.output, rig, arguments.frames, arguments.overwrite
        )
    else:
        from dualview.scene.convert.nuscenes import convert_nuscenes

        summary = convert_nuscenes(
            arguments.dataroot, arguments.output, arguments.scene, arguments.version, rig, arguments.overwrite
        )
    print(f"{arguments.output}\n{summary}")
    return 0


def _convert_logs(arguments: argparse.Namespace, rig: Rig | None) -> int:
    """Convert every log that can be converted; 1 if there was another."""
    from dualview.errors import DualViewError
    from dualview.scene.convert.argoverse2 import convert_argoverse2_logs

    failed = 0
    for path, result in convert_argoverse2_logs(arguments.logs, arguments.output, rig, arguments.overwrite):
        if isinstance(result, DualViewError):
            failed += 1
            print(f"{path} was not written: {result}", file=sys.stderr)
        else:
            print(f"{path}\n{result}", flush=True)
    if failed and len(arguments.logs) > 1:
        print(f"{failed} of {len(arguments.logs)} logs were not converted", file=sys.stderr)
    return 1 if failed else 0


def _frames(text: str) -> range:
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and int(start) < int(stop)):
        raise argparse.ArgumentTypeError(f"'{text}' is not A:B with A < B, e.g. 0:20")
    return range(int(start), int(stop))
