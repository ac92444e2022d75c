"""From BEVFormer's queries to scored boxes (its NMSFreeCoder: the queries settle overlaps among themselves)."""

from __future__ import annotations

from torch import Tensor

from dualview.detectors.box_decoding import DecodedBoxes, decode_instances


def decode_queries(
    class_logits: Tensor,
    anchors: Tensor,
    max_boxes: int = 300,
    score_threshold: float | None = None,
    center_range: tuple[float, float, float] = (61.2, 61.2, 10.0),
) -> list[DecodedBoxes]:
    """Scored boxes of each sample, best first: class_logits [B, N, classes], box states [B, N, 11].

    The best `max_boxes` over queries x classes, less those below `score_threshold` and those whose centre lies
    further out than `center_range` (|x|, |y|, |z| in m) on any axis.
    """
    results = []
    for decoded in decode_instances(
        class_logits, anchors, max_boxes=max_boxes, score_threshold=score_threshold
    ):
        limit = decoded.boxes.new_tensor(center_range)
        kept = (decoded.boxes[:, :3].abs() <= limit).all(1) & decoded.boxes.isfinite().all(1)
        results.append(
            DecodedBoxes(
                decoded.boxes[kept], decoded.scores[kept], decoded.labels[kept], decoded.class_scores[kept],
                decoded.query[kept],
            )
        )  # fmt: skip
    return results
