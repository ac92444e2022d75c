"""From a decoder's last layer to scored boxes (Sparse4Dv3's decoder; no suppression of overlaps: the queries
settle that)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dualview.networks.box_state import decode_boxes
from dualview.networks.refinement import CENTERNESS


@dataclass(frozen=True)
class DecodedBoxes:
    """The boxes of one sample, best first.

    boxes [M, 10]: x, y, z, length, width, height (m), yaw (rad), velocity (m/s). scores [M]: class
    probability, times the probability of centerness where quality is given. labels [M] int64. class_scores
    [M]: the class probability alone. track_ids [M]: None if no ids were given. query [M] int64: which
    instance a box came from.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    class_scores: Tensor
    query: Tensor
    track_ids: Tensor | None = None


def decode_instances(
    class_logits: Tensor,
    anchors: Tensor,
    quality: Tensor | None = None,
    track_ids: Tensor | None = None,
    max_boxes: int = 300,
    score_threshold: float | None = None,
    misaligned_class_scores: bool = False,
) -> list[DecodedBoxes]:
    """Scored boxes of each sample of a batch.

    class_logits [B, N, classes], anchors [B, N, 11], quality logits [B, N, 2], track_ids [B, N] int64. The
    best `max_boxes` by class probability are taken (with ids: one box for each instance, its best class;
    without: over instances x classes), those below `score_threshold` in class probability dropped, and the
    rest sorted by class probability x centerness. `misaligned_class_scores` leaves `class_scores` in the
    order before that sort, as the published code does.
    """
    probabilities = class_logits.float().sigmoid()
    best_labels = None
    if track_ids is not None:
        probabilities, best_labels = probabilities.max(-1, keepdim=True)
    choices = probabilities.shape[-1]
    flat = probabilities.flatten(1)
    class_scores, index = flat.topk(min(max_boxes, flat.shape[1]), dim=1)
    results = []
    for b in range(len(class_scores)):
        query = index[b] // choices
        labels = index[b] % choices if best_labels is None else best_labels[b, query, 0]
        scores = aligned = class_scores[b]
        if quality is not None:
            scores, order = (aligned * quality[b, query, CENTERNESS].float().sigmoid()).sort(descending=True)
            query, labels, aligned = query[order], labels[order], aligned[order]
        kept = slice(None) if score_threshold is None else aligned >= score_threshold
        shown = class_scores[b] if misaligned_class_scores else aligned
        query = query[kept]
        results.append(
            DecodedBoxes(
                boxes=decode_boxes(anchors[b, query].float()),
                scores=scores[kept],
                labels=labels[kept],
                class_scores=shown[kept],
                query=query,
                track_ids=None if track_ids is None else track_ids[b, query],
            )
        )
    return results
