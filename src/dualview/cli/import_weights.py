"""Turn another project's checkpoint into a dualview checkpoint (.safetensors with its configuration)."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

HELP = "turn another project's checkpoint into ours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `dualview import-weights`."""
    parser.add_argument(
        "kind",
        choices=("sparse4dv3", "bevformer-tiny"),
        help="what the checkpoint is: Sparse4Dv3 (ResNet-50, 256x704) or BEVFormer-tiny (ResNet-50, 800x450)",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="the published checkpoint: .safetensors, or .pth with --allow-pickle"
    )
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read a pickled checkpoint; tensors and plain containers only, nothing in it is executed",
    )


def run(arguments: argparse.Namespace) -> int:
    """Import, and say what became of every key."""
    from dualview.detectors.checkpoint import read_tensors, save_checkpoint, sha256_of
    from dualview.detectors.import_bevformer import import_bevformer
    from dualview.detectors.import_sparse4d import import_sparse4dv3
    from dualview.errors import WeightsError

    if arguments.output.suffix != ".safetensors":
        raise WeightsError(f"the output '{arguments.output}' must end in .safetensors")
    published = read_tensors(arguments.checkpoint, arguments.allow_pickle)
    importers: dict[str, Callable[..., Any]] = {"sparse4dv3": import_sparse4dv3, "bevformer-tiny": import_bevformer}
    detector, report = importers[arguments.kind](published)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    source = f"{arguments.checkpoint.name} sha256 {sha256_of(arguments.checkpoint)}"
    save_checkpoint(detector, arguments.output, {"imported_from": source, "imported_as": arguments.kind})
    print(f"{len(report.used)} of {len(published)} keys used, {len(report.dropped)} dropped")
    for key, why in report.dropped.items():
        print(f"  dropped {key}: {why}")
    print(f"wrote {arguments.output} ({detector.config.name}, sha256 {sha256_of(arguments.output)})")
    return 0
