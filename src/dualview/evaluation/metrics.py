"""All scores of an evaluation as one JSON-friendly dictionary, and its best-known numbers as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dualview.evaluation.depth import DepthError, DepthErrors, depth_errors
from dualview.evaluation.detection import ClassDetection, DetectionScores, score_by_range, score_detections
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.matching import match_keyframes
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.run import Drive, percentiles
from dualview.evaluation.tracking import COUNTS, TrackingScores, score_tracks, score_tracks_by_range

_TRACKING_NAMES = {
    "amota": "AMOTA", "amotp": "AMOTP", "mota": "MOTA", "motp": "MOTP", "recall": "recall", "ids": "IDS", "frag": "FRAG",
    "fp": "FP", "fn": "FN", "tp": "TP", "mt": "MT", "ml": "ML", "faf": "FAF", "tid": "TID", "lgd": "LGD",
}  # fmt: skip

WORST_SWITCHES = 20  # how many identity switches metrics.json tells one by one


def compute_metrics(
    drives: Sequence[Drive], keyframes: Sequence[Keyframe], protocol: Protocol
) -> tuple[dict[str, Any], DetectionScores | None]:
    """(metrics.json's content, the detection scores with their curves).

    Without any label (`keyframes` empty) the scores are absent, `scored` is False and `note` says why; the rest is there.
    """
    metrics: dict[str, Any] = {
        "scored": bool(keyframes),
        "weights": sorted({d.weights for d in drives}),
        "drives": [d.name for d in drives],
        "drives_without_labels": [d.name for d in drives if d.name not in {k.drive for k in keyframes}],
        "frames": sum(len(d.predictions) for d in drives),
        "frames_dropped": dict(sum((Counter(d.dropped) for d in drives), Counter())),
        "latency_ms": _latency(drives),
        "protocol": asdict(protocol),
    }
    if not keyframes:
        metrics["note"] = (
            "the recordings have no labels (annotations_topic of the rig): nothing to score against"
        )
        return _jsonable(metrics), None
    detection = score_detections(keyframes, protocol)
    tracking = score_tracks(keyframes, protocol)
    tracking_bins = score_tracks_by_range(keyframes, protocol)
    depth = depth_errors(match_keyframes(keyframes, protocol), protocol)
    metrics |= {
        "keyframes": len(keyframes),
        "keyframes_without_output": sum(k.prediction is None for k in keyframes),
        **_detection_summary(detection),
        "present": _present(detection),
        **_tracks(tracking.summary),
        "depth_error": _depth(depth.overall),
        "per_class": _per_class(detection, tracking, depth),
        "per_range": {
            name: _range(scores, tracking_bins.get(name), depth.bins[name], depth.bin_classes[name])
            for name, scores in score_by_range(keyframes, protocol).items()
        },
        "worst_id_switches": [asdict(switch) for switch in tracking.switches[:WORST_SWITCHES]],
    }
    if not any(any(k.annotations.attributes) for k in keyframes):
        metrics["note"] = "the labels have no attributes, so AAE counts as 1 in NDS"
    return _jsonable(metrics), detection


def _detection_summary(scores: DetectionScores) -> dict[str, float]:
    return {
        "mAP": scores.mean_ap,
        "NDS": scores.nds,
        **{f"m{name}": value for name, value in scores.errors.items()},
    }


def _present(scores: DetectionScores) -> dict[str, Any] | None:
    """The summary over classes that have labels: what a short drive without buses can be judged by."""
    if scores.present is None:
        return None
    names = [name for name, c in scores.classes.items() if c.label_count]
    return {**_detection_summary(scores.present), "classes": names}


def _per_class(
    detection: DetectionScores, tracking: TrackingScores, depth: DepthErrors
) -> dict[str, dict[str, Any]]:
    classes: dict[str, dict[str, Any]] = {}
    for name, scores in detection.classes.items():
        classes[name] = {
            "labels": scores.label_count,
            "predictions": scores.prediction_count,
            **_precision(scores),
            **scores.errors,
            "depth_error": _depth(depth.classes[name]),
        }
    for name, values in tracking.classes.items():
        classes.setdefault(name, {}).update(_tracks(values))
    return classes


def _range(
    scores: DetectionScores, tracking: TrackingScores | None, depth: DepthError, classes: Mapping[str, DepthError]
) -> dict[str, Any]:
    """One distance bin: its summary, and each class that has labels in it."""
    tracks = {} if tracking is None else tracking.classes
    return {
        **_detection_summary(scores),
        **({} if tracking is None else _tracks(tracking.summary)),
        "labels": sum(c.label_count for c in scores.classes.values()),
        "depth_error": _depth(depth),
        "per_class": {
            name: {"labels": c.label_count, **_precision(c), **c.errors, "depth_error": _depth(classes[name])}
            | (_tracks(tracks[name]) if name in tracks else {})
            for name, c in scores.classes.items()
        },
    }


def _precision(scores: ClassDetection) -> dict[str, float]:
    return {
        "ap": scores.mean_ap,
        **{f"ap_{distance:g}m": value for distance, value in scores.average_precision.items()},
    }


def _depth(error: DepthError) -> dict[str, float | int]:
    return {
        "mean_abs_m": error.absolute, "mean_rel": error.relative, "bias_m": error.bias, "matches": error.matches,
    }  # fmt: skip


def _tracks(values: Mapping[str, float]) -> dict[str, float | int]:
    """The devkit's tracking metrics by their names in metrics.json."""
    return {title: _count(key, values[key]) for key, title in _TRACKING_NAMES.items()}


def _count(key: str, value: float) -> float | int:
    """Counts as integers."""
    return int(value) if key in COUNTS and math.isfinite(value) else value


def _latency(drives: Sequence[Drive]) -> dict[str, dict[str, float]]:
    stages: dict[str, list[float]] = {}
    for drive in drives:
        for stage, values in drive.latency_ms.items():
            stages.setdefault(stage, []).extend(values)
    return {stage: percentiles(values) for stage, values in stages.items() if values}


def _jsonable(value: Any) -> Any:
    """NaN and infinity become null; tuples lists; keys strings."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def headline(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of the numbers that one looks at first."""
    if not metrics["scored"]:
        return [("scores", metrics["note"])]

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = [(name, shown(metrics[name])) for name in ("mAP", "NDS", "AMOTA", "AMOTP", "MOTA")]
    rows.append(("IDS", "–" if metrics["IDS"] is None else f"{metrics['IDS']:.0f}"))
    present = metrics["present"]
    if present and len(present["classes"]) < len(metrics["per_class"]):
        count = f"{len(present['classes'])} of {len(metrics['per_class'])} classes that have labels"
        rows.append((f"mAP, NDS over the {count}", f"{shown(present['mAP'])}, {shown(present['NDS'])}"))
    rows.append(
        ("keyframes (without output)", f"{metrics['keyframes']} ({metrics['keyframes_without_output']})")
    )
    return rows
