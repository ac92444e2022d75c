"""Depth for every image of recordings, offline, by a depth network of the transformers library (hub name or local folder). The maps lie
beside the recording, in BAG.depth/MODEL; a run that was stopped goes on when it is started again. Most networks give relative depth:
--metric solves scale and shift for each image, from LiDAR (lidar), from the confident boxes of a detector (boxes, with --weights) or from
the road (ground).

--model rendered works on synthetic drives only and needs no network: it is the simulator's own depth, made worse, and stands for none.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = "recordings -> depth maps beside them, by a depth network"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`dualview label-depth BAG... --model dpt-hybrid [--metric boxes --weights W]`."""
    parser.add_argument("bags", nargs="+", metavar="BAG", help="recordings")
    parser.add_argument(
        "--model", required=True,
        help="dpt-hybrid, dpt-large, depth-anything-small (base, large, metric-small, metric-large), zoedepth, a hub name, a folder, or "
        "rendered",
    )  # fmt: skip
    parser.add_argument(
        "--rig", help="rig name or file (default: the known one whose cameras the recording has)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="keep the maps in DIR instead of beside the recording"
    )
    parser.add_argument(
        "--width", type=int, default=384, help="columns of the stored maps (default %(default)s)"
    )
    parser.add_argument(
        "--every",
        type=float,
        default=0.0,
        metavar="S",
        help="one image of each camera in S seconds (default: all)",
    )
    parser.add_argument("--batch", type=int, default=1, help="images at a time (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--kind", choices=("inverse", "metric"), help="what the network's numbers are, if it doesn't say"
    )
    parser.add_argument(
        "--metric", choices=("lidar", "boxes", "ground"),
        help="how relative depth becomes metres (default: boxes if --weights are given; else it stays relative)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", help="the detector of --metric boxes: a preset, a name in models/, or a file"
    )
    parser.add_argument(
        "--score",
        type=float,
        default=0.5,
        help="boxes of --metric boxes count from this score on (default %(default)s)",
    )
    parser.add_argument(
        "--ground-height", type=float, default=0.0, metavar="M",
        help="of the road in the ego frame, for --metric ground (default %(default)s)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Make the maps that are missing, then the metres."""
    from dualview.errors import ConfigError
    from dualview.evaluation.run import fitting_rig
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.depth_labels.job import label_depth, wanted_images
    from dualview.scene.depth_labels.store import DepthStore, depth_folder

    option = arguments.metric or ("boxes" if arguments.weights else None)
    if option == "boxes" and not arguments.weights:
        raise ConfigError("--metric boxes needs the detector whose boxes shall count: give --weights")
    if arguments.width < 32 or arguments.batch < 1 or arguments.every < 0:
        raise ConfigError("--width must be 32 or more, --batch 1 or more, --every not negative")
    network = _network(arguments)
    for path in arguments.bags:
        rig = fitting_rig(path, arguments.rig)
        folder = depth_folder(path, arguments.model, arguments.out)
        with BagReader(path) as bag, contextlib.ExitStack() as stack:
            estimator = network or stack.enter_context(_rendered(bag, rig))
            store = DepthStore.create(folder, estimator.source(arguments.width))
            total = sum(bag.topics[c.image_topic].count for c in rig.cameras if c.image_topic in bag.topics)
            if arguments.every:
                total = sum(1 for _ in wanted_images(bag, rig, arguments.every))
            bar = stack.enter_context(_bar(arguments, path, total))
            count = label_depth(
                bag, rig, store, estimator, arguments.width, arguments.every, arguments.batch,
                _follow(bar),
            )  # fmt: skip
        about = store.about()
        print(f"{folder}: {count.made} maps made, {count.kept} there already; {about['description']}")
        if count.broken:
            print(f"  no map of {len(count.broken)} images, such as {count.broken[0]}")
        if about["kind"] == "inverse":
            _metres(arguments, path, rig, store, option)
    return 0


def _network(arguments: argparse.Namespace) -> Any:
    """The depth network, None for the rendered stand-in, which is opened for each recording."""
    from dualview.teachers.monocular_depth import TransformersDepth

    if arguments.model == "rendered":
        return None
    return TransformersDepth(arguments.model, arguments.device, arguments.kind)


def _rendered(bag: Any, rig: Any) -> Any:
    from dualview.scene.synthetic.drive_depth import RenderedDepth

    return RenderedDepth(bag, rig)


def _metres(arguments: argparse.Namespace, path: str, rig: Any, store: Any, option: str | None) -> None:
    """Solve scale and shift by an option, and say how well that went."""
    import numpy as np

    from dualview.scene.bag_reader import BagReader
    from dualview.scene.depth_labels.metric_pairs import fit_recording

    if option is None:
        print(
            "  the depth is relative; --metric lidar, boxes (with --weights) or ground turns it into metres"
        )
        return
    detections = _detections(arguments, path, rig) if option == "boxes" else ()
    with BagReader(path) as bag:
        fits, told = fit_recording(bag, rig, store, option, detections, arguments.ground_height)
    store.write_fits(option, fits)
    errors = [fit.error for images in fits.values() for fit in images.values()]
    error = (
        f", median relative error at the points used {100 * float(np.median(errors)):.1f} %" if errors else ""
    )
    print(
        f"  metres by {option}: {', '.join(f'{n} images {what}' for what, n in told.most_common()) or 'no image'}{error}"
    )


def _detections(arguments: argparse.Namespace, path: str, rig: Any) -> Any:
    import dualview
    from dualview.detectors.session import TrackingSession
    from dualview.evaluation.run import detect
    from dualview.scene.assembler import AssemblerSettings
    from dualview.scene.depth_labels.metric_pairs import BoxesAt

    detector = dualview.load(arguments.weights, arguments.device)
    session = TrackingSession(detector, AssemblerSettings.for_rig(rig).min_cameras, decode_workers=2)
    with _bar(arguments, path, None, "frame") as bar:
        drive = detect(path, rig, session, progress=_follow(bar))
    found = [BoxesAt(p.stamp_ns, p.boxes[p.boxes.score > arguments.score]) for p in drive.predictions]
    print(f"  {sum(len(f.boxes) for f in found)} boxes above {arguments.score:g} by {drive.weights}")
    return found


def _follow(bar: Any) -> Callable[[int], None]:
    return lambda done: bar.update(done - bar.n)


def _bar(arguments: argparse.Namespace, path: str, total: int | None, unit: str = "image") -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, desc=Path(path).name, disable=arguments.quiet or None)
