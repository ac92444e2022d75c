"""A pretrained feature pyramid: what a checkpoint's neck has learned to say of a backbone's maps, for a detector of another kind.

Levels are matched by their stride: a detector that lifts the map of stride 16 takes that level of a pyramid over 8, 16 and 32.
"""

from __future__ import annotations

from torch import Tensor

from dualview.detectors.checkpoint import find_checkpoint, load_checkpoint
from dualview.detectors.detector import Detector
from dualview.errors import ConfigError, WeightsError
from dualview.networks.feature_pyramid import FeaturePyramid


def load_neck_weights(detector: Detector, source: str) -> str:
    """Load the pyramid of a checkpoint (by path or by name in models/) into `detector`; returns a line about what was loaded.

    Raises ConfigError if the detector has no pyramid, WeightsError if the checkpoint has none or its levels don't fit.
    """
    pyramid, backbone = getattr(detector, "feature_pyramid", None), detector.image_backbone
    if not isinstance(pyramid, FeaturePyramid) or backbone is None:
        raise ConfigError(f"{detector.config.name} has no feature pyramid: leave neck_weights out of the recipe")
    path = find_checkpoint(source)
    if not path.is_file():
        raise WeightsError(f"neck_weights: there is no checkpoint '{source}': name a file, or one of `dualview models`")
    other = load_checkpoint(path)
    theirs = getattr(other, "feature_pyramid", None)
    if not isinstance(theirs, FeaturePyramid) or other.image_backbone is None:
        raise WeightsError(f"neck_weights: {path} is '{other.config.name}', which has no feature pyramid")
    place = {stride: level for level, stride in enumerate(other.image_backbone.strides)}
    absent = [stride for stride in backbone.strides if stride not in place]
    if absent:
        raise WeightsError(f"neck_weights: the pyramid of {path} has no level of stride {absent[0]}")
    levels = {place[stride]: level for level, stride in enumerate(backbone.strides)}
    wanted, found = pyramid.state_dict(), dict[str, Tensor]()
    for name, value in theirs.state_dict().items():
        part, their_level, rest = name.split(".", 2)
        level = levels.get(int(their_level))
        # A level that only gives to finer ones needs its first layer alone; one that is given out needs all that it has over there.
        if level is not None and (part == "lateral" or level < len(pyramid.output)):
            found[f"{part}.{level}.{rest}"] = value
    wrong = [name for name in {**wanted, **found} if not _alike(wanted.get(name), found.get(name))]
    if wrong:
        raise WeightsError(
            f"neck_weights: the pyramid of {path} doesn't fit, such as at {wrong[0]}: give neck_channels and neck_blocks of its own"
        )
    pyramid.load_state_dict(found)
    return f"neck: {len(found)} tensors from {source}"


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape
