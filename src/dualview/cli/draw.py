"""Draw a recording: six cameras with projected boxes and ids beside the view from above, as a video or a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "a video or a picture of a recording with its boxes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("bag", type=Path, help="the recording with the images")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".mp4: all frames; .png or .jpg: some, in a strip",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--tracks", metavar="OUT.mcap", help="draw what a node published, recorded here")
    source.add_argument("--weights", help="run this detector and draw its tracks (default: labels only)")
    parser.add_argument("--tracks-topic", help="topic of the tracks in OUT.mcap (default: the only one)")
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--frames", type=int, default=3, metavar="N", help="frames of a strip (default 3)")
    parser.add_argument(
        "--width", type=int, default=480, metavar="PX", help="width of a camera's picture (default 480)"
    )
    parser.add_argument(
        "--reach",
        type=float,
        default=50.0,
        metavar="M",
        help="how far the view from above goes (default 50 m)",
    )
    parser.add_argument("--min-score", type=float, default=0.0, help="leave out boxes with a lower score")
    parser.add_argument("--no-labels", action="store_true", help="leave out the recording's own labels")
    parser.add_argument("--no-lidar", action="store_true", help="leave out LiDAR points")


def run(arguments: argparse.Namespace) -> int:
    """Draw, and say what was written."""
    from dualview.drawing.output import draw_strip, draw_video
    from dualview.drawing.view import LabelledBoxes
    from dualview.errors import ConfigError
    from dualview.evaluation.run import detect, fitting_rig, recorded
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.recorded import read_bev_images

    kind = arguments.out.suffix.lower()
    if kind not in (".mp4", ".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--out {arguments.out}: the file must end in .mp4, .png or .jpg")
    if not 40 <= arguments.width <= 4000 or not 1.0 <= arguments.reach <= 1000.0 or arguments.frames < 1:
        raise ConfigError("--width is 40 to 4000 px, --reach 1 to 1000 m, --frames 1 or more")
    rig = fitting_rig(arguments.bag, arguments.rig)
    drive, bev_images = None, {}
    if arguments.tracks:
        drive = recorded(arguments.bag, arguments.tracks, rig, arguments.tracks_topic)
        with BagReader(arguments.tracks) as bag:
            bev_images = read_bev_images(bag)
    elif arguments.weights:
        import dualview
        from dualview.detectors.session import TrackingSession

        detector = dualview.load(arguments.weights, arguments.device, precision="auto")  # as the node
        drive = detect(arguments.bag, rig, TrackingSession(detector))
    tracks = None
    if drive is not None:
        tracks = {
            p.stamp_ns: LabelledBoxes(p.boxes[p.boxes.score >= arguments.min_score], p.class_names)
            for p in drive.predictions
        }
    options = {
        "width": arguments.width, "truth": not arguments.no_labels, "lidar": not arguments.no_lidar,
        "bev_images": bev_images, "subtitle": drive.weights if drive else "labels",
    }  # fmt: skip
    if kind == ".mp4":
        count = draw_video(arguments.out, arguments.bag, rig, tracks, arguments.reach, _progress, **options)
    else:
        count = draw_strip(
            arguments.out, arguments.bag, rig, tracks, arguments.frames, arguments.reach, **options
        )
    print(f"{arguments.out}: {count} frames")
    return 0


def _progress(done: int) -> None:
    if done % 5 == 0 and sys.stderr.isatty():
        print(f"\r{done} frames drawn", end="", file=sys.stderr, flush=True)
