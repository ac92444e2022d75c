"""Read recordings once and keep their frames at network size, so that training never waits for them.

`dualview train` does the same when it starts; this builds the drives beforehand, and goes on where it was
stopped.
"""

from __future__ import annotations

import argparse

HELP = "prepare recordings for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "recipe", help="the recipe that they are for: a name in config/recipes, or a YAML file"
    )
    parser.add_argument(
        "--bags", nargs="+", metavar="BAG", help="recordings, folders or patterns; replaces data.train"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe"
    )


def run(arguments: argparse.Namespace) -> int:
    """Build what is missing and say what there is."""
    from dualview.training.data_module import prepare_drives
    from dualview.training.recipe import load_recipe, parse_changes

    changes = parse_changes(arguments.set)
    if arguments.bags:
        changes["data.train"] = arguments.bags
    recipe = load_recipe(arguments.recipe, changes)
    drives = prepare_drives(recipe, recipe.detector_config(), print)
    labelled = sum(int(drive.labelled.sum()) for drive in drives)
    print(f"{len(drives)} drives, {sum(map(len, drives))} frames, {labelled} labelled")
    return 0
