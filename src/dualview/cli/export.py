"""Write a checkpoint for others: half the size, and with what should be known of it beside the weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualview.detectors.bev_colors import BevColors

HELP = "write a checkpoint in half precision, for sharing"
_FRAMES = 16  # that colours are found on


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("weights", help="a checkpoint, such as runs/dualview_tiny/weights.safetensors")
    parser.add_argument("out", help="the .safetensors file to write, such as models/mine.safetensors")
    parser.add_argument(
        "--bev-colors",
        metavar="BAG",
        help="find the colours of the BEV map's pictures on this recording (training does it by itself)",
    )
    parser.add_argument("--rig", help="of that recording (default: the known one whose cameras it has)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="a setting that the copy shall have, such as score_threshold=0.1 (repeatable)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(arguments: argparse.Namespace) -> int:
    """Write it and say how large it became."""
    from dualview.detectors.checkpoint import export_half
    from dualview.errors import ConfigError
    from dualview.training.recipe import parse_changes

    out = Path(arguments.out).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"'{out}' must end in .safetensors")
    if out.exists() and not arguments.overwrite:
        raise ConfigError(f"{out} exists: say --overwrite to replace it, or choose another name")
    weights = Path(arguments.weights).expanduser()
    colors = None if arguments.bev_colors is None else _colors(weights, arguments.bev_colors, arguments.rig)
    largest = export_half(weights, out, colors, parse_changes(arguments.set))
    print(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB; rounding changed no weight by more than {largest:.1e} of itself"
    )
    return 0


def _colors(weights: Path, bag: str, rig_name: str | None) -> BevColors:
    """Of the detector's BEV maps of some frames, evenly spread over a recording. Raises ConfigError without a BEV map."""
    import torch

    from dualview.detectors.bev_colors import BevColors
    from dualview.detectors.checkpoint import load_detector
    from dualview.errors import ConfigError
    from dualview.evaluation.run import fitting_rig
    from dualview.scene.assembler import ClosedFrame
    from dualview.scene.bag_reader import BagReader
    from dualview.scene.offline import iterate_frames
    from dualview.scene.preprocess import ImagePreprocessor

    detector, rig = load_detector(weights), fitting_rig(bag, rig_name)
    with BagReader(bag) as reader:
        count = sum(isinstance(c, ClosedFrame) for c in iterate_frames(reader, rig))
        chosen = {round((i + 0.5) * count / _FRAMES - 0.5) for i in range(_FRAMES)}
        frames = (c for c in iterate_frames(reader, rig, lidar=detector.config.lidar) if isinstance(c, ClosedFrame))
        preprocessor, seen = ImagePreprocessor(detector.config.image_size), []
        for index, closed in enumerate(frames):
            if index in chosen:
                frame, _ = preprocessor.build(closed)
                bev = detector.step(frame, detector.initial_state())[0].bev
                if bev is not None:
                    seen.append(bev.features[:, bev.valid].T)
    colors = BevColors.fit(torch.cat(seen)) if seen else None
    if colors is None:
        raise ConfigError(f"--bev-colors: {detector.config.name} shows no BEV map of {bag}: leave it out")
    return colors
