"""nuScenes' detection scores: mean average precision, true-positive errors, NDS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from dualview.evaluation import devkit
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol

ERROR_NAMES = {
    "trans_err": "ATE",
    "scale_err": "ASE",
    "orient_err": "AOE",
    "vel_err": "AVE",
    "attr_err": "AAE",
}


@dataclass(frozen=True)
class ClassDetection:
    """One class: average precision by distance threshold (m), true-positive errors by name (NaN = undefined), number of labels and of
    predictions, and the precision [101] over recall 0..1 at each threshold."""

    average_precision: Mapping[float, float]
    errors: Mapping[str, float]
    label_count: int
    prediction_count: int
    precision: Mapping[float, np.ndarray]

    @property
    def mean_ap(self) -> float:
        """Mean over the distance thresholds."""
        return float(np.mean(list(self.average_precision.values())))


@dataclass(frozen=True)
class DetectionScores:
    """nuScenes' summary over all classes of the protocol, and by class.

    errors: ATE (m), ASE, AOE (rad), AVE (m/s), AAE, each the mean over the classes for which it is defined. A class without any label
    scores 0 and errors of 1, as the devkit counts it; `present` is the same summary over only the classes that have labels, None
    where no class has any.
    """

    mean_ap: float
    nds: float
    errors: Mapping[str, float]
    classes: Mapping[str, ClassDetection]
    present: DetectionScores | None = None


def score_detections(keyframes: Sequence[Keyframe], protocol: Protocol) -> DetectionScores:
    """Detection scores of all keyframes together, by the algorithms of `DetectionEval.evaluate`."""
    truth, predicted = devkit.detection_boxes(keyframes, protocol)
    return _score(truth, predicted, protocol, protocol.class_ranges)


def score_by_range(keyframes: Sequence[Keyframe], protocol: Protocol) -> dict[str, DetectionScores]:
    """The same scores for each of the protocol's distance bins apart ("0-15m").

    Labels and predictions belong to the bin of their own distance, so a pair on both sides of an edge counts as one miss and one
    false alarm. Only classes with labels in a bin enter its summary.
    """
    truth, predicted = devkit.detection_boxes(keyframes, protocol)
    scores = {}
    for near, far in protocol.range_bins:
        parts = []
        for boxes in (truth, predicted):
            part = devkit.EvalBoxes()
            for token in boxes.sample_tokens:
                part.add_boxes(token, [b for b in boxes[token] if near <= b.ego_dist < far])
            parts.append(part)
        names = [
            name for name in protocol.class_ranges if any(b.detection_name == name for b in parts[0].all)
        ]
        if names:
            scores[f"{near:g}-{far:g}m"] = _score(parts[0], parts[1], protocol, names)
    return scores


def _score(
    truth: devkit.EvalBoxes,
    predicted: devkit.EvalBoxes,
    protocol: Protocol,
    names: Sequence[str] | Mapping[str, float],
) -> DetectionScores:
    classes = {name: _score_class(truth, predicted, name, protocol) for name in names}
    present = [name for name, scores in classes.items() if scores.label_count]
    whole = _summary(classes, protocol)
    if not present:
        return DetectionScores(*whole, classes)
    return DetectionScores(
        *whole, classes, DetectionScores(*_summary({n: classes[n] for n in present}, protocol), classes)
    )


def _summary(
    classes: Mapping[str, ClassDetection], protocol: Protocol
) -> tuple[float, float, dict[str, float]]:
    """(mAP, NDS, mean errors) by the devkit's own sums."""
    metrics = devkit.DetectionMetrics(
        SimpleNamespace(class_names=list(classes), mean_ap_weight=protocol.mean_ap_weight)
    )
    for name, scores in classes.items():
        for threshold, value in scores.average_precision.items():
            metrics.add_label_ap(name, threshold, value)
        for error, ours in ERROR_NAMES.items():
            metrics.add_label_tp(name, error, scores.errors[ours])
    with np.errstate(all="ignore"):
        return metrics.mean_ap, metrics.nd_score, {ERROR_NAMES[k]: v for k, v in metrics.tp_errors.items()}


def _score_class(
    truth: devkit.EvalBoxes, predicted: devkit.EvalBoxes, name: str, protocol: Protocol
) -> ClassDetection:
    labels, predictions = (_of_class(boxes, name) for boxes in (truth, predicted))
    precision, average, errors = {}, {}, {}
    for threshold in protocol.distance_thresholds:
        data = devkit.accumulate(labels, predictions, name, devkit.center_distance, threshold)
        precision[threshold] = data.precision
        average[threshold] = devkit.calc_ap(data, protocol.min_recall, protocol.min_precision)
        if threshold == protocol.true_positive_threshold:
            undefined = protocol.undefined_errors.get(name, ())
            errors = {
                ours: np.nan if error in undefined else devkit.calc_tp(data, protocol.min_recall, error)
                for error, ours in ERROR_NAMES.items()
                if error not in protocol.constant_errors
            } | {ERROR_NAMES[error]: value for error, value in protocol.constant_errors.items()}
    return ClassDetection(average, errors, len(labels.all), len(predictions.all), precision)


def _of_class(boxes: devkit.EvalBoxes, name: str) -> devkit.EvalBoxes:
    """Only the boxes of one class, which is all that the devkit's matching looks at; much faster to walk through."""
    part = devkit.EvalBoxes()
    for token in boxes.sample_tokens:
        part.add_boxes(token, [box for box in boxes[token] if box.detection_name == name])
    return part
