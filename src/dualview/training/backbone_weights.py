"""Pretrained backbones: see `dualview.detectors.backbone_weights`, where teachers find them too."""

from dualview.detectors.backbone_weights import (
    installed_file,
    load_backbone_weights,
    rename_efficientnet_lite,
)

__all__ = ["installed_file", "load_backbone_weights", "rename_efficientnet_lite"]
