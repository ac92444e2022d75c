"""The colours of a trained detector's BEV map, found on a batch of its training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dualview.detectors.bev_colors import BevColors
from dualview.training.samples import TrainingBatch

if TYPE_CHECKING:
    from dualview.training.module import DetectorTraining


@torch.no_grad()
def colors_of_batch(module: DetectorTraining, batch: TrainingBatch) -> BevColors | None:
    """Colours for the weights that would be saved now, seen as in use (evaluation mode); None without a BEV map, or while it
    shows nothing. The training goes on as if nothing had been asked.
    """
    detector = module.best_weights()
    detector.eval()
    try:
        inputs = module.detector_inputs(batch)
        prediction = detector(inputs, detector.initial_memory(), with_instances=False)
    finally:
        module.train(module.training)  # as its own rules say which parts train
    if prediction.bev is None:
        return None
    return BevColors.fit(prediction.bev.features.float().movedim(1, -1).flatten(0, 2))
