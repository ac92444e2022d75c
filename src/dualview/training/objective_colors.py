"""Colours as the cameras give them, for detectors whose depth is smoothed over like colours (BEVNeXt, arXiv 2312.01696).

The network's images are also jittered in colour and hidden behind a grid, so that it learns not to rely on them; the random
field's affinities have nothing to learn, and want the canvas without those two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualview.detectors.config import DetectorConfig
from dualview.detectors.detector import Settings
from dualview.detectors.inputs import DetectorInputs
from dualview.detectors.prediction import Prediction
from dualview.training.objectives import Objective, SampleNeeds
from dualview.training.recipe import Recipe
from dualview.training.samples import FrameView, TrainingBatch

EXTRA = "colors"


@dataclass(frozen=True)
class ColorReader:
    """A sample's images uint8 [1, N, 3, H, W] (RGB) in their augmented geometry, without photometric changes and grid. A
    corruption is of the camera, and stays.
    """

    def __call__(self, view: FrameView) -> Tensor:
        frame, corruption = view.labelled.frame, view.draw.corruption
        seen = frame if corruption is None else corruption.frame(frame)
        return view.draw.image.apply(seen).images[None]


class CleanColors(Objective):
    """No objective but an input: the images' own colours."""

    @property
    def needs(self) -> SampleNeeds:
        """The colours of every sample."""
        return SampleNeeds(readers=((EXTRA, ColorReader()),))

    def complete(self, inputs: DetectorInputs, batch: TrainingBatch) -> DetectorInputs:
        """`inputs.colors`."""
        return replace(inputs, colors=torch.cat(batch.extras[EXTRA]).float())

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """None."""
        return {}


def build_clean_colors(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None] = lambda line: None
) -> CleanColors | None:
    """What a random field over the depth needs beside images whose colours were changed; None for other detectors, and where
    the images are as the cameras gave them.
    """
    changed = recipe.augmentation.photometric is not None or recipe.augmentation.grid_mask is not None
    if not isinstance(detector, DetectorConfig) or detector.bev is None or not changed:
        return None
    return None if detector.bev.depth_field is None else CleanColors()
