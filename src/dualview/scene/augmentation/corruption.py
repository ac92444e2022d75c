"""Corruption augmentation: some clips are seen through one of RoboBEV's corruptions (RayD3D: arXiv 2603.07493, table 3).

RayD3D says that it trains with corruptions, not which nor how often; the settings' defaults are ours. A clip keeps its
corruption, as a drive does: the same cameras stay dark and the same fog hangs before them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dualview.scene.corruptions.catalogue import CORRUPTIONS, SEVERITIES
from dualview.scene.corruptions.corruption import Corruption


@dataclass(frozen=True)
class CorruptionAugmentationSettings:
    """probability that a clip is corrupted; then one of `corruptions` and one of `severities` is drawn, each as likely."""

    probability: float = 0.5
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[str, ...] = SEVERITIES

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability {self.probability} must lie in 0..1")
        if not (self.corruptions and self.severities):
            raise ValueError("corruptions and severities must each name at least one (null turns all off)")
        for name in self.corruptions:
            Corruption(name, self.severities[0])
        for severity in self.severities:
            Corruption(self.corruptions[0], severity)


def draw_corruption(
    random: np.random.Generator, settings: CorruptionAugmentationSettings
) -> Corruption | None:
    """What a clip is seen through, with a seed of its own; None: nothing."""
    chosen, seed = random.uniform(), int(random.integers(2**31))
    name = settings.corruptions[random.integers(len(settings.corruptions))]
    severity = settings.severities[random.integers(len(settings.severities))]
    return Corruption(name, severity, seed) if chosen < settings.probability else None
