"""Which frames went worst: for looking at, not for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dualview.evaluation import devkit
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol


@dataclass(frozen=True)
class FrameErrors:
    """Misses and false alarms of one keyframe, counting predictions from `threshold` on."""

    keyframe: Keyframe
    misses: int
    false_alarms: int
    threshold: float

    @property
    def total(self) -> int:
        """Both together."""
        return self.misses + self.false_alarms


def worst_frames(keyframes: Sequence[Keyframe], protocol: Protocol, count: int) -> list[FrameErrors]:
    """The `count` keyframes with the most errors at the true-positive distance, at least a second apart in a drive.

    Predictions count from the score on at which F1 over all keyframes is best, so that a detector that offers many weak boxes isn't
    judged by them.
    """
    matches = [_matches(keyframe, protocol) for keyframe in keyframes]
    threshold = _best_threshold(matches)
    errors = []
    for keyframe, (scores, hits, labels) in zip(keyframes, matches, strict=True):
        taken = scores >= threshold
        errors.append(
            FrameErrors(keyframe, labels - int(hits[taken].sum()), int((~hits[taken]).sum()), threshold)
        )
    chosen: list[FrameErrors] = []
    for candidate in sorted(errors, key=lambda e: -e.total):
        stamp, drive = candidate.keyframe.annotations.stamp_ns, candidate.keyframe.drive
        near = any(
            c.keyframe.drive == drive and abs(c.keyframe.annotations.stamp_ns - stamp) < 1_000_000_000
            for c in chosen
        )
        if candidate.total and not near and len(chosen) < count:
            chosen.append(candidate)
    return chosen


def _matches(keyframe: Keyframe, protocol: Protocol) -> tuple[np.ndarray, np.ndarray, int]:
    """(scores [P], whether each prediction hit a label [P], number of labels), best first, nearest free label of its class."""
    truth, predicted = devkit.detection_boxes([keyframe], protocol)
    labels, free = truth[keyframe.token], set(range(len(truth[keyframe.token])))
    boxes = sorted(predicted[keyframe.token], key=lambda b: -b.detection_score)
    hits = np.zeros(len(boxes), bool)
    for i, box in enumerate(boxes):
        same = [j for j in free if labels[j].detection_name == box.detection_name]
        distances = {j: devkit.center_distance(labels[j], box) for j in same}
        nearest = min(distances, key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] < protocol.true_positive_threshold:
            hits[i] = True
            free.discard(nearest)
    return np.array([b.detection_score for b in boxes]), hits, len(labels)


def _best_threshold(matches: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> float:
    scores = np.concatenate([m[0] for m in matches]) if matches else np.zeros(0)
    if not len(scores):
        return 0.0
    order = np.argsort(-scores)
    hits = np.cumsum(np.concatenate([m[1] for m in matches])[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + max(sum(m[2] for m in matches), 1))
    return float(scores[order][int(f1.argmax())])
