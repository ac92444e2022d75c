"""Read recordings once and keep their frames at network size, so that training never waits for them.

`dualview train` does the same when it starts; this builds the drives beforehand, and goes on where it was
stopped.
"""

from __future__ import annotations

import argparse

from dualview.cli._recipe import add_recipe_arguments, recipe_from

HELP = "prepare recordings for training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Build what is missing and say what there is."""
    from dualview.training.labelled_drives import training_drives

    recipe = recipe_from(arguments)
    drives = training_drives(recipe, recipe.detector_config(), print)
    labelled = sum(int(drive.labelled.sum()) for drive in drives)
    print(f"{len(drives)} drives, {sum(map(len, drives))} frames, {labelled} labelled")
    return 0
