"""What commands that copy recordings have in common."""

from __future__ import annotations

import sys
from pathlib import Path


def tell_left_out(source: str | Path) -> None:
    """Name the topics of `source` that its copy lacks, because neither it nor dualview defines their types."""
    from dualview.scene.bag_reader import BagReader

    with BagReader(source) as bag:
        for topic, kind in bag.undefined.items():
            print(f"left out: {topic}, whose type {kind} neither the recording nor dualview defines", file=sys.stderr)
