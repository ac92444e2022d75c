"""Draw label maps of a recording: cameras, label map, and with --run what a trained detector predicts of it and the error.

Example: dualview draw-maps drive.mcap --label-maps label_maps --run runs/dualview_tiny_maps --out maps.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from dualview.detectors.detector import Detector

HELP = "a strip of pictures of label maps and of what a detector learned of them"
_EXAMPLES = 24  # label maps that the colours are found on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("bag", type=Path, help="the recording")
    parser.add_argument(
        "--label-maps", required=True, metavar="DIR", help="what `dualview label-maps` made of it"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", dest="run_folder",
                        help="folder of a training run with map_distillation: its weights and its head")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=".png or .jpg")
    parser.add_argument("--rig", help="rig name or file (default: the known one whose cameras it has)")
    parser.add_argument("--frames", type=int, default=3, metavar="N", help="frames of the strip (default 3)")
    parser.add_argument(
        "--width", type=int, default=240, metavar="PX", help="of a camera's picture (default 240)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")


def run(arguments: argparse.Namespace) -> int:
    """Draw, and say what was written."""
    import torch

    from dualview.detectors.session import TrackingSession
    from dualview.drawing.map_picture import MapView, label_colors, map_picture
    from dualview.drawing.recording import drawing_size
    from dualview.drawing.video import strip, write_picture
    from dualview.errors import ConfigError
    from dualview.evaluation.run import fitting_rig
    from dualview.scene.assembler import ClosedFrame
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.offline import iterate_frames
    from dualview.scene.preprocess import ImagePreprocessor
    from dualview.teachers.label_store import LabelMaps

    if arguments.out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"--out {arguments.out}: the file must end in .png or .jpg")
    maps, bag = LabelMaps(arguments.label_maps), arguments.bag.expanduser().resolve()
    session, head = None, None
    if arguments.run_folder is not None:
        detector, head = _trained(arguments.run_folder.expanduser(), arguments.device, arguments.label_maps)
        session = TrackingSession(detector)
    rig = fitting_rig(bag, arguments.rig)
    with BagReader(bag) as reader:
        stamps = [c.stamp_ns for c in iterate_frames(reader, rig) if isinstance(c, ClosedFrame)]
        stamps = [stamp for stamp in stamps if maps.sparse(bag, stamp) is not None]
        if not stamps:
            raise ConfigError(
                f"{maps.directory} holds no label map of a frame of {bag.name}: make them first"
            )
        count = max(1, min(arguments.frames, len(stamps)))
        chosen = {stamps[round((i + 0.5) * len(stamps) / count - 0.5)] for i in range(count)}
        colors = label_colors(torch.cat([label.features for label in maps.examples(_EXAMPLES)]))
        if colors is None:
            raise ConfigError(f"the label maps in {maps.directory} are all alike: there is nothing to draw")
        pictures, preprocessor = [], None
        lidar = None if session is None else session.detector.config.lidar
        for closed in iterate_frames(reader, rig, lidar=lidar):
            if not isinstance(closed, ClosedFrame) or closed.stamp_ns > max(chosen):
                continue
            wanted = closed.stamp_ns in chosen
            bev = None if session is None else session.process(closed, with_bev_map=wanted).output.bev
            if not wanted:
                continue
            preprocessor = preprocessor or ImagePreprocessor(drawing_size(closed, arguments.width))
            label = maps.dense(bag, closed.stamp_ns)
            assert label is not None
            predicted = seen = None
            if bev is not None and head is not None:
                predicted, seen = head(bev.features.movedim(0, -1)).movedim(-1, 0), bev.valid
            title = f"{bag.stem}, t = {(closed.stamp_ns - stamps[0]) / 1e9:.2f} s"
            frame, _ = preprocessor.build(closed)
            view = MapView(frame, label.features, label.mask, predicted, seen, title)
            pictures.append(map_picture(view, colors))
    write_picture(arguments.out, strip(pictures))
    print(f"{arguments.out}: {len(pictures)} frames")
    return 0


def _trained(folder: Path, device: str, label_maps: str) -> tuple[Detector, nn.Module]:
    """The detector of a run, and its head. Raises ConfigError if they or the label maps don't go together."""
    from dualview.detectors.checkpoint import load_detector
    from dualview.errors import ConfigError
    from dualview.teachers.label_store import open_label_maps
    from dualview.training.objective_maps import load_distillation_head

    head = load_distillation_head(folder)
    detector = load_detector(folder / "weights.safetensors", device)
    grid = detector.config.bev_grid
    assert grid is not None  # it was distilled into
    maps = open_label_maps(label_maps, grid)
    if head.out_features != maps.channels:
        raise ConfigError(
            f"{folder} learned label maps of {head.out_features} channels, those in {maps.directory} have {maps.channels}: "
            "name the folder that it learned from"
        )
    return detector, head
