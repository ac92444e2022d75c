"""Published Sparse4Dv3 checkpoints into ours: which of its 819 names is which of our parameters."""

from __future__ import annotations

import re

# (pattern of the published name, our name); the first that matches the whole name counts.
_IMAGE_ENCODER = (
    (r"img_backbone\.(.+)", r"image_backbone.body.\1"),
    (r"img_neck\.lateral_convs\.(\d+)\.conv\.(.+)", r"feature_pyramid.lateral.\1.\2"),
    (r"img_neck\.fpn_convs\.(\d+)\.conv\.(.+)", r"feature_pyramid.output.\1.\2"),
    (r"depth_branch\.depth_layers\.(\d+)\.(.+)", r"dense_depth.layers.\1.\2"),
)


def image_encoder_name(published: str) -> str | None:
    """Our name of a parameter of the backbone, the neck or the depth branch; None if it belongs to something else."""
    for pattern, ours in _IMAGE_ENCODER:
        if match := re.fullmatch(pattern, published):
            return match.expand(ours)
    return None
