"""What training leaves alone: early stages of a pretrained backbone, since edges and textures are the same on every road, and whole
parts of a network that was trained before.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from dualview.detectors.detector import Detector
from dualview.errors import ConfigError
from dualview.training.recipe import Recipe


def early_stages(body: nn.Module, stages: int) -> list[nn.Module]:
    """The stem and the first `stages` stages of a timm network; none at all for 0.

    Raises ValueError if the network's stages aren't known.
    """
    if stages == 0:
        return []
    children = dict(body.named_children())
    stem = [children[name] for name in ("conv_stem", "conv1", "bn1", "stem") if name in children]
    if "blocks" in children:
        found = list(children["blocks"].children())
    else:
        found = [children[name] for name in sorted(children) if name.startswith(("layer", "stages"))]
    if not stem or len(found) < stages:
        raise ValueError(
            f"freeze_stages {stages}: the backbone has {len(found)} known stages; set it to at most that, or to 0"
        )
    return [*stem, *found[:stages]]


def freeze(body: nn.Module, stages: int) -> None:
    """No gradient for the stem and the first `stages` stages."""
    for part in early_stages(body, stages):
        part.requires_grad_(False)


def freeze_detector(detector: Detector, recipe: Recipe) -> None:
    """No gradient for what the recipe freezes: stages of the backbone, and parts. Raises as `freeze` and `frozen_parts` do."""
    if detector.image_backbone is not None:
        freeze(detector.image_backbone.body, recipe.freeze_stages)
    for part in frozen_parts(detector, recipe.frozen):
        part.requires_grad_(False)


def keep_statistics(body: nn.Module, everywhere: bool, stages: int) -> None:
    """Batch norms that use what they know instead of the batch: of the whole backbone, or of its frozen
    stages.
    """
    for part in [body] if everywhere else early_stages(body, stages):
        for module in part.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def frozen_parts(network: nn.Module, names: Iterable[str]) -> list[nn.Module]:
    """The parts ("feature_pyramid", "bev_branch.encoder") by name. Raises ConfigError for one that the network hasn't got."""
    parts = dict(network.named_modules())
    for name in names:
        if name not in parts:
            known = ", ".join(child for child, _ in network.named_children())
            raise ConfigError(f"frozen: the detector has no part '{name}'; its parts are {known}")
    return [parts[name] for name in names]
