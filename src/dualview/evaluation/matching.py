"""Which prediction found which label at one keyframe: nuScenes' matching, pair by pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dualview.evaluation import devkit
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol


@dataclass(frozen=True)
class KeyframeMatches:
    """Filtered labels and predictions of one keyframe as the devkit's boxes, predictions best first, and for each prediction the index
    of the label that it found, None for a false alarm."""

    keyframe: Keyframe
    labels: Sequence[Any]
    predictions: Sequence[Any]
    found: Sequence[int | None]

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        """(label, prediction) of every true positive."""
        for prediction, index in zip(self.predictions, self.found, strict=True):
            if index is not None:
                yield self.labels[index], prediction


def match_keyframes(keyframes: Sequence[Keyframe], protocol: Protocol) -> list[KeyframeMatches]:
    """Matches at the protocol's true-positive distance, in the order of the devkit's `accumulate`: predictions by falling score (of
    equal ones the last first), each to the nearest label of its class that is still free, if that is near enough. Matching over all
    keyframes at once, as the devkit does, comes to the same, since a prediction can find labels of its own keyframe only."""
    truth, predicted = devkit.detection_boxes(keyframes, protocol)
    return [
        _match(keyframe, truth[keyframe.token], predicted[keyframe.token], protocol.true_positive_threshold)
        for keyframe in keyframes
    ]


def _match(
    keyframe: Keyframe, labels: Sequence[Any], predictions: Sequence[Any], threshold: float
) -> KeyframeMatches:
    ranked = sorted(enumerate(predictions), key=lambda p: (p[1].detection_score, p[0]), reverse=True)
    ordered = [prediction for _, prediction in ranked]
    free = set(range(len(labels)))
    found: list[int | None] = []
    for box in ordered:
        same = [j for j in sorted(free) if labels[j].detection_name == box.detection_name]
        distances = {j: devkit.center_distance(labels[j], box) for j in same}
        nearest = min(distances, key=distances.__getitem__, default=None)
        if nearest is not None and distances[nearest] < threshold:
            free.discard(nearest)
            found.append(nearest)
        else:
            found.append(None)
    return KeyframeMatches(keyframe, labels, ordered, found)
