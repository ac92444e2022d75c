"""Write a checkpoint for others: half the size, and with what should be known of it beside the weights."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a checkpoint in half precision, for sharing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("weights", help="a checkpoint, such as runs/dualview_tiny/weights.safetensors")
    parser.add_argument("out", help="the .safetensors file to write, such as models/mine.safetensors")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")


def run(arguments: argparse.Namespace) -> int:
    """Write it and say how large it became."""
    from dualview.detectors.checkpoint import export_half
    from dualview.errors import ConfigError

    out = Path(arguments.out).expanduser()
    if out.suffix != ".safetensors":
        raise ConfigError(f"'{out}' must end in .safetensors")
    if out.exists() and not arguments.overwrite:
        raise ConfigError(f"{out} exists: say --overwrite to replace it, or choose another name")
    largest = export_half(Path(arguments.weights).expanduser(), out)
    print(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB; rounding changed no weight by more than {largest:.1e} of itself"
    )
    return 0
