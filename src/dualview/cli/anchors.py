"""Cluster the boxes of recordings into anchors (k-means), as Sparse4D starts from; a recipe takes the file as
`anchors`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dualview.cli._recipe import add_recipe_arguments, recipe_from

HELP = "make anchors from the boxes of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--count", type=int, help="number of anchors (default: the detector's)")
    parser.add_argument("--out", type=Path, default=Path("anchors.npy"), help="where to write them (.npy)")


def run(arguments: argparse.Namespace) -> int:
    """Collect boxes, cluster, write."""
    from dualview.errors import ConfigError
    from dualview.training.anchors import clustered_anchors, save_anchors
    from dualview.training.data_module import prepare_drives

    recipe = recipe_from(arguments)
    config = recipe.detector_config()
    decoder = config.decoder
    if decoder is None:
        raise ConfigError(f"{config.name} has no decoder whose instances begin at anchors: choose a recipe of a DualView or Sparse4D")
    count = arguments.count or decoder.num_anchors
    if arguments.out.suffix != ".npy":
        raise ConfigError(f"--out {arguments.out}: anchors are a .npy file: call it {arguments.out.with_suffix('.npy')}")
    try:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {arguments.out}: its folder can't be made ({error.strerror})") from error
    anchors, boxes = clustered_anchors(recipe, prepare_drives(recipe, config, print), count, decoder.anchor_range)
    save_anchors(anchors, arguments.out)
    print(f"{count} anchors from {boxes} boxes: {arguments.out}")
    return 0
