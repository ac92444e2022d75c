"""Train a detector on recorded drives.

Example: dualview train dualview_tiny --bags drives/train --out runs/tiny; after an interruption, the same
with --resume.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import yaml

from dualview.cli._recipe import add_recipe_arguments, recipe_from

HELP = "train a detector by a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run (default: runs/<recipe>)")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the folder's last checkpoint, exactly"
    )
    parser.add_argument("--check", action="store_true", help="check the recipe, print it whole, and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> int:
    """Check the recipe first, then train."""
    # Threads that wait for each other by spinning bring a busy machine to a stand-still (measured: 10 times
    # slower beside other work). OpenMP reads this once, before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from dualview.errors import ConfigError
    from dualview.training.named_files import missing_files
    from dualview.training.recipe import recipe_to_dict

    recipe = recipe_from(arguments)
    missing = missing_files(recipe)
    if arguments.check:
        print(yaml.safe_dump(recipe_to_dict(recipe), sort_keys=False), end="")
        for sentence in missing:
            print(f"not there yet: {sentence}", file=sys.stderr)
        return 0
    if missing:
        raise ConfigError("; ".join(missing))
    from dualview.training.trainer import train

    folder = arguments.out or Path("runs") / Path(arguments.recipe).stem
    result = train(recipe, folder, arguments.resume, progress_bar=not arguments.quiet)
    print(f"{result.steps} steps; weights: {result.weights}")
    return 0
