"""Cluster the boxes of recordings into anchors (k-means), as Sparse4D starts from; a recipe takes the file as
`anchors`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make anchors from the boxes of recordings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "recipe", help="the recipe that they are for: a name in config/recipes, or a YAML file"
    )
    parser.add_argument(
        "--bags", nargs="+", metavar="BAG", help="recordings, folders or patterns; replaces data.train"
    )
    parser.add_argument("--count", type=int, help="number of anchors (default: the detector's)")
    parser.add_argument("--out", type=Path, default=Path("anchors.npy"), help="where to write them (.npy)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe"
    )


def run(arguments: argparse.Namespace) -> int:
    """Collect boxes, cluster, write."""
    from dualview.errors import ConfigError
    from dualview.training.anchors import kmeans_anchors, save_anchors, training_boxes
    from dualview.training.data_module import prepare_drives
    from dualview.training.recipe import load_recipe, parse_changes

    changes = parse_changes(arguments.set)
    if arguments.bags:
        changes["data.train"] = arguments.bags
    recipe = load_recipe(arguments.recipe, changes)
    config = recipe.detector_config()
    boxes = training_boxes(prepare_drives(recipe, config, print), recipe.data)
    if not len(boxes):
        raise ConfigError("the recordings hold no box that counts: check data.max_range and min_lidar_points")
    count = arguments.count or config.decoder.num_anchors
    save_anchors(kmeans_anchors(boxes, count, recipe.seed), arguments.out)
    print(f"{count} anchors from {len(boxes)} boxes: {arguments.out}")
    return 0
