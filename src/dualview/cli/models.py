"""List every detector that `dualview.load` knows by name: presets, and the checkpoints in the models
folders.
"""

from __future__ import annotations

import argparse

HELP = "list detectors and shipped checkpoints"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dualview models`: none."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each."""
    from dualview.detectors.catalogue import catalogue

    entries = catalogue()
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        height, image_width = entry.image_size
        size = f"{height}x{image_width}"
        print(
            f"{entry.name:{width}}  {entry.parameters / 1e6:6.1f} M parameters  {size:>8} px"
            f"  {entry.weights:40}  {entry.summary}"
        )
    return 0
