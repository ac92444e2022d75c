"""Objects as points in the images, as an objective: supervision right at the image features, by a small head that lives in the
training and leaves the detector as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.detectors.config import DetectorConfig
from dualview.detectors.detector import Settings
from dualview.detectors.prediction import Prediction
from dualview.errors import ConfigError
from dualview.networks.center_head import HEATMAP_PRIOR
from dualview.supervision.image_centers import (
    NUMBERS,
    ImageCenterSettings,
    image_center_losses,
    image_center_targets,
)
from dualview.training.objectives import Objective
from dualview.training.recipe import Recipe
from dualview.training.samples import TrainingBatch


@dataclass(frozen=True)
class _Shape:
    """Of the maps that the head reads: channels and stride; classes that it tells."""

    channels: int
    stride: int
    classes: int


class ImageCenters(Objective):
    """Losses of a pointwise head on the finest image features; terms "image_centers/heatmap|box"."""

    def __init__(self, shape: _Shape, settings: ImageCenterSettings) -> None:
        super().__init__()
        self._shape, self._settings = shape, settings
        hidden = settings.hidden_channels
        self.hidden = nn.Sequential(nn.Conv2d(shape.channels, hidden, 1), nn.ReLU(inplace=True))
        self.heatmap = nn.Conv2d(hidden, shape.classes, 1)
        self.numbers = nn.Conv2d(hidden, NUMBERS, 1)
        assert self.heatmap.bias is not None
        nn.init.constant_(self.heatmap.bias, HEATMAP_PRIOR)

    def losses(self, prediction: Prediction, batch: TrainingBatch) -> dict[str, Tensor]:
        """Weighted terms, over the samples whose boxes are known."""
        (features, *_), inputs, shape = prediction.image_features, batch.inputs, self._shape
        views = features.shape[:2]
        hidden = self.hidden(features.flatten(0, 1).float())
        heatmap, numbers = (layer(hidden).unflatten(0, views) for layer in (self.heatmap, self.numbers))
        mask = inputs.camera_mask
        if batch.boxed and not all(batch.boxed):
            known = torch.tensor(batch.boxed, device=mask.device)
            # What is known of nothing mustn't be called background: those samples' images are left out of both sums.
            heatmap, numbers, mask = heatmap[known], numbers[known], mask[known]
            matrices = inputs.image_from_working[known]
            truths = [truth for truth, boxed in zip(batch.truths, batch.boxed, strict=True) if boxed]
        else:
            matrices, truths = inputs.image_from_working, batch.truths
        targets = image_center_targets(truths, matrices, mask, inputs.image_size, shape.stride, shape.classes)
        terms = image_center_losses(heatmap, numbers, targets)
        return {
            "image_centers/heatmap": self._settings.weight * terms["heatmap"],
            "image_centers/box": self._settings.box_weight * terms["box"],
        }


def build_image_centers(
    recipe: Recipe, detector: Settings, tell: Callable[[str], None] = lambda line: None
) -> ImageCenters | None:
    """The objective of a recipe's `image_centers`, None without. Raises ConfigError for a detector whose image features can't be
    reached.
    """
    section = recipe.image_centers
    if section is None:
        return None
    if not isinstance(detector, DetectorConfig):
        raise ConfigError(
            f"image_centers: {detector.name} doesn't show its image features, only DualView and Sparse4D do: leave the section out"
        )
    shape = _Shape(detector.decoder.embed_dims, detector.pyramid_strides[0], len(detector.class_names))
    with torch.random.fork_rng(devices=[]):  # the detector's own weights stay those of its base
        torch.manual_seed(recipe.seed)
        return ImageCenters(shape, section)
