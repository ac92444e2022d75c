"""A pretrained feature pyramid: what a checkpoint's neck has learned to say of a backbone's maps, for a detector of another kind.

Levels are matched by their stride: a detector that lifts the map of stride 16 takes that level of a pyramid over 8, 16 and 32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualview.detectors.checkpoint import find_checkpoint, load_checkpoint
from dualview.detectors.detector import Detector
from dualview.errors import ConfigError, WeightsError
from dualview.networks.feature_pyramid import FeaturePyramid

_BY_LEVEL = ("lateral", "output", "blocks")


def load_neck_weights(detector: Detector, source: str) -> str:
    """Load the pyramid of a checkpoint (by path or by name in models/) into `detector`; returns a line about what was loaded.

    Raises ConfigError if the detector has no pyramid, WeightsError if the checkpoint has none or its levels don't fit.
    """
    pyramid, backbone = getattr(detector, "feature_pyramid", None), detector.image_backbone
    if not isinstance(pyramid, FeaturePyramid) or backbone is None:
        raise ConfigError(f"{detector.config.name} has no feature pyramid: leave neck_weights out of the recipe")
    path = find_checkpoint(source)
    other = load_checkpoint(path)
    theirs = getattr(other, "feature_pyramid", None)
    if not isinstance(theirs, FeaturePyramid) or other.image_backbone is None:
        raise WeightsError(f"neck_weights: {path} is '{other.config.name}', which has no feature pyramid")
    place = {stride: level for level, stride in enumerate(other.image_backbone.strides)}
    absent = [stride for stride in backbone.strides if stride not in place]
    if absent:
        raise WeightsError(f"neck_weights: the pyramid of {path} has no level of stride {absent[0]}")
    given, wanted, found = theirs.state_dict(), pyramid.state_dict(), dict[str, Tensor]()
    for name in wanted:
        part, level, rest = name.split(".", 2)
        assert part in _BY_LEVEL
        found[name] = given.get(f"{part}.{place[backbone.strides[int(level)]]}.{rest}", torch.empty(0))
    wrong = [name for name, value in wanted.items() if found[name].shape != value.shape]
    if wrong:
        raise WeightsError(
            f"neck_weights: the pyramid of {path} doesn't fit, such as at {wrong[0]}: give neck_channels and neck_blocks of its own"
        )
    pyramid.load_state_dict(found)
    return f"neck: {len(found)} tensors from {source}"
