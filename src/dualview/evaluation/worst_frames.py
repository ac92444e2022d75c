"""Which frames went worst: for looking at, not for scoring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.matching import KeyframeMatches, match_keyframes
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


@dataclass(frozen=True)
class _Outcome:
    """Scores [P] of a keyframe's predictions, whether each hit a label [P], and the number of labels."""

    scores: np.ndarray
    hits: np.ndarray
    labels: int


def worst_frames(keyframes: Sequence[Keyframe], protocol: Protocol, count: int) -> list[FrameErrors]:
    """The `count` keyframes with the most errors at the true-positive distance, at least a second apart in a drive.

    Predictions count from the score on at which F1 over all keyframes is best, so that a detector that offers many weak boxes isn't
    judged by them.
    """
    outcomes = [_outcome(matches) for matches in match_keyframes(keyframes, protocol)]
    threshold = _best_threshold(outcomes)
    errors = []
    for keyframe, outcome in zip(keyframes, outcomes, strict=True):
        hits = outcome.hits[outcome.scores >= threshold]
        errors.append(FrameErrors(keyframe, outcome.labels - int(hits.sum()), int((~hits).sum()), threshold))
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


def _outcome(matches: KeyframeMatches) -> _Outcome:
    scores = np.array([b.detection_score for b in matches.predictions])
    return _Outcome(scores, np.array([f is not None for f in matches.found], dtype=bool), len(matches.labels))


def _best_threshold(outcomes: Sequence[_Outcome]) -> float:
    """The score from which on F1 over all keyframes is best."""
    scores = np.concatenate([o.scores for o in outcomes]) if outcomes else np.zeros(0)
    if not len(scores):
        return 0.0
    order = np.argsort(-scores)
    hits = np.cumsum(np.concatenate([o.hits for o in outcomes])[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + max(sum(o.labels for o in outcomes), 1))
    return float(scores[order][int(f1.argmax())])
