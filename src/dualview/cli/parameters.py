"""Print the node's parameters: as the README's table, or as a parameter file with all defaults."""

from __future__ import annotations

import argparse

HELP = "print the node's parameters as a table or as a parameter file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="a Markdown table (the default)")
    form.add_argument("--yaml", action="store_true", help="a parameter file for ros2 launch and dualview run")


def run(arguments: argparse.Namespace) -> int:
    """Print."""
    from dualview.ros.parameters import markdown_table, yaml_defaults

    print(yaml_defaults() if arguments.yaml else markdown_table(), end="")
    return 0
