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
    from dualview.training.anchors import kmeans_anchors, save_anchors, training_boxes
    from dualview.training.data_module import prepare_drives

    recipe = recipe_from(arguments)
    config = recipe.detector_config()
    boxes = training_boxes(prepare_drives(recipe, config, print), recipe.data)
    if not len(boxes):
        raise ConfigError("the recordings hold no box that counts: check data.max_range and min_lidar_points")
    count = arguments.count or config.decoder.num_anchors
    reach = config.decoder.anchor_range
    save_anchors(kmeans_anchors(boxes, count, recipe.seed, spiral_range=reach), arguments.out)
    print(f"{count} anchors from {len(boxes)} boxes: {arguments.out}")
    return 0
