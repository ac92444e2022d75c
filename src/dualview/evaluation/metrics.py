"""All scores of an evaluation as one JSON-friendly dictionary, and its best-known numbers as a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dualview.evaluation.detection import DetectionScores, score_by_range, score_detections
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.run import Drive, percentiles
from dualview.evaluation.tracking import COUNTS, TrackingScores, score_tracks

_TRACKING_NAMES = {
    "amota": "AMOTA", "amotp": "AMOTP", "mota": "MOTA", "motp": "MOTP", "recall": "recall", "ids": "IDS", "frag": "FRAG",
    "fp": "FP", "fn": "FN", "tp": "TP", "mt": "MT", "ml": "ML", "faf": "FAF", "tid": "TID", "lgd": "LGD",
}  # fmt: skip


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
    metrics |= {
        "keyframes": len(keyframes),
        "keyframes_without_output": sum(k.prediction is None for k in keyframes),
        **_detection_summary(detection),
        "present": _present(detection),
        **{name: _count(key, tracking.summary[key]) for key, name in _TRACKING_NAMES.items()},
        "per_class": _per_class(detection, tracking, protocol),
        "per_range": {
            name: {
                **_detection_summary(scores),
                "labels": sum(c.label_count for c in scores.classes.values()),
                "per_class": {
                    n: {"ap": c.mean_ap, "labels": c.label_count} for n, c in scores.classes.items()
                },
            }
            for name, scores in score_by_range(keyframes, protocol).items()
        },
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


def _per_class(detection: DetectionScores, tracking: TrackingScores, protocol: Protocol) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    for name, scores in detection.classes.items():
        classes[name] = {
            "labels": scores.label_count,
            "predictions": scores.prediction_count,
            "ap": scores.mean_ap,
            **{f"ap_{distance:g}m": value for distance, value in scores.average_precision.items()},
            **scores.errors,
        }
    for name, values in tracking.classes.items():
        ours = {title: _count(key, values[key]) for key, title in _TRACKING_NAMES.items()}
        classes.setdefault(name, {}).update(ours)
    return classes


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
