"""The training loss of BEVFormer's object queries (arXiv 2203.17270; DETR's matching, arXiv 2005.12872)."""

from __future__ import annotations

from dataclasses import replace

from dualview.supervision.detection_loss import DetectionLossConfig

# Over the ten target numbers: centre, log size, sine and cosine of the heading, velocity.
_COST = (1.0,) * 8 + (0.0, 0.0)
_LOSS = (1.0,) * 8 + (0.2, 0.2)
_WITHOUT_HEADING = (1.0,) * 6 + (0.0, 0.0, 1.0, 1.0)


def query_loss(base: DetectionLossConfig) -> DetectionLossConfig:
    """`base` with BEVFormer's weights: focal 2, L1 0.25, velocity a fifth and left out of the matching; no loss that
    waits for confidence. Classes without heading and reversible classes stay what they are in `base`.
    """
    cones = {label: _WITHOUT_HEADING for label in base.matching.class_dimension_weights}
    matching = replace(base.matching, dimension_weights=_COST, class_dimension_weights=cones)
    return replace(base, matching=matching, dimension_weights=_LOSS, class_threshold=0.0)
