"""What the commands that take a recipe share: its arguments, and how they change it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualview.training.recipe import Recipe


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `recipe`, its changes, `--bags` and `--set`."""
    parser.add_argument("recipe", help="a recipe's name in config/recipes, or a YAML file")
    parser.add_argument(
        "changes", nargs="*", metavar="KEY=VALUE",
        help="changes of its keys, right after it; source=PATH and target=PATH name the recordings with 3D and with 2D labels",
    )  # fmt: skip
    parser.add_argument(
        "--bags", nargs="+", metavar="BAG", help="recordings, folders or patterns; replaces data.train"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="change a key of the recipe, such as optimizer.learning_rate=1e-4 (repeatable)",
    )  # fmt: skip


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe that the arguments name, with their changes. Raises ConfigError for a wrong name, key or value."""
    from dualview.training.recipe import load_recipe, parse_changes

    changes = parse_changes([*arguments.changes, *arguments.set])
    if arguments.bags:
        changes["data.train"] = arguments.bags
    return load_recipe(arguments.recipe, changes)
