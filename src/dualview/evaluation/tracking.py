"""nuScenes' tracking scores: AMOTA, AMOTP and the CLEAR MOT counts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dualview.evaluation import devkit
from dualview.evaluation.accumulation import ClassAccumulation, IdSwitch
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol

# What a class gets for a recall that it never reaches; -1 and the like are the devkit's marks for "count the labels".
_WORST = {
    "amota": 0.0, "amotp": 2.0, "recall": 0.0, "motar": 0.0, "mota": 0.0, "motp": 2.0, "mt": 0.0, "ml": -1.0, "faf": 500, "gt": -1,
    "tp": 0.0, "fp": -1.0, "fn": -1.0, "ids": -1.0, "frag": -1.0, "tid": 20, "lgd": 20,
}  # fmt: skip
COUNTS = ("mt", "ml", "tp", "fp", "fn", "ids", "frag")
_MEANS = ("amota", "amotp", "recall", "motar", "mota", "motp", "faf", "tid", "lgd")


@dataclass(frozen=True)
class TrackingScores:
    """The devkit's summary: metric name in lower case ("amota", "ids", …) -> value over all classes, and class -> the same.

    Counts are sums over the classes, the rest means over the classes that have labels; NaN where no class has any. MOTA and the counts
    are those at each class's best score threshold; `switches` are the identity switches there, the worst first: those where an id
    was lost that the object had kept for longest.
    """

    summary: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]
    switches: tuple[IdSwitch, ...] = ()


def tracking_config(protocol: Protocol) -> devkit.TrackingConfig:
    """The devkit's configuration of a protocol. Making one also tells the devkit's `TrackingBox` the class names (its own global)."""
    names = list(protocol.tracking_ranges)
    return devkit.TrackingConfig(
        names, dict(zip(names, names, strict=True)), dict.fromkeys(names, "C0"), dict(protocol.tracking_ranges), "center_distance",
        protocol.true_positive_threshold, protocol.min_recall, protocol.max_boxes, _WORST, protocol.recall_steps,
    )  # fmt: skip


def score_tracks_by_range(keyframes: Sequence[Keyframe], protocol: Protocol) -> dict[str, TrackingScores]:
    """The same scores for each of the protocol's distance bins apart ("0-15m"): of the parts of tracks that lie in it. Bins without
    labels are left out."""
    scores = {}
    for near, far in protocol.range_bins:
        found = score_tracks(keyframes, protocol, (near, far))
        if not math.isnan(found.summary["amota"]):
            scores[f"{near:g}-{far:g}m"] = found
    return scores


def score_tracks(
    keyframes: Sequence[Keyframe], protocol: Protocol, distances: tuple[float, float] = (0.0, math.inf)
) -> TrackingScores:
    """Tracking scores of all drives together, by the algorithms of `TrackingEval.evaluate`; distances: only what is so far from the
    vehicle (m)."""
    config = tracking_config(protocol)
    labels, predictions = devkit.tracking_boxes(keyframes, protocol, distances)
    metrics = devkit.TrackingMetrics(config)
    switches: list[IdSwitch] = []
    for name in config.class_names:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # pandas' and motmetrics' notes to their own authors
            accumulation = ClassAccumulation(labels, predictions, name, config, protocol.recall_steps)
            data = accumulation.accumulate()
            best = _best(data)
            if best is not None and not np.isnan(data.confidence[best]):
                switches += accumulation.switches(data.confidence[best])
        _add_class(metrics, data, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mean over no class is the NaN that we want
        summary = {metric: metrics.compute_metric(metric) for metric in (*_MEANS, *COUNTS)}
    present = [name for name in config.class_names if not np.isnan(metrics.label_metrics["amota"][name])]
    if not present:
        summary = dict.fromkeys(summary, float("nan"))
    classes = {
        name: {m: metrics.compute_metric(m, name) for m in (*_MEANS, *COUNTS)} for name in config.class_names
    }
    switches.sort(key=lambda s: (-s.held, s.distance))
    return TrackingScores(summary, classes, tuple(switches))


def _add_class(metrics: devkit.TrackingMetrics, data: devkit.TrackingMetricData, name: str) -> None:
    """The class's counts at its best threshold and its averages over recall, as `TrackingEval.evaluate` picks them."""
    best = _best(data)
    if best is not None:
        for metric in filter(None, devkit.MOT_METRIC_MAP.values()):
            metrics.add_label_metric(metric, name, data.get_metric(metric)[best])
    for average, metric in devkit.AVG_METRIC_MAP.items():
        values = np.array(data.get_metric(metric))
        if np.isnan(values).all():
            metrics.add_label_metric(average, name, np.nan)
        else:
            metrics.add_label_metric(
                average, name, float(np.mean(np.where(np.isnan(values), _WORST[average], values)))
            )


def _best(data: devkit.TrackingMetricData) -> int | None:
    """The recall step with the best MOTA; None if the class has no labels."""
    return None if np.isnan(data.mota).all() else int(np.nanargmax(data.mota))
