"""What a demo is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoSettings:
    """bag None: a synthetic drive of `seconds` s with `seed`. rate None: as fast as the machine can follow.

    score_threshold None: the checkpoint's own, or a low one for untrained weights.
    """

    bag: Path | None
    out: Path
    rig: str | None = None
    weights: str = "dualview-tiny"
    device: str = "auto"
    seed: int = 12
    seconds: float = 8.0
    rate: float | None = None
    score_threshold: float | None = None
    video: bool = True
