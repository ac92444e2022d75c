"""The border to nuscenes-devkit: its modules, and our boxes in its classes.

The devkit's algorithms are used as they are (`accumulate`, `calc_ap`, `calc_tp`, `TrackingEvaluation`, `interpolate_tracks`); no nuScenes
tables are involved. It is installed without its dependency pins, which ask for an old NumPy it doesn't need.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dualview.errors import DualViewError
from dualview.evaluation.attributes import KNOWN_ATTRIBUTES, attribute_of
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol
from dualview.geometry.boxes import Boxes3D

try:
    from nuscenes.eval.common.data_classes import EvalBox, EvalBoxes
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate, calc_ap, calc_tp
    from nuscenes.eval.detection.data_classes import DetectionBox, DetectionMetricData, DetectionMetrics
    from nuscenes.eval.tracking.algo import TrackingEvaluation
    from nuscenes.eval.tracking.constants import AVG_METRIC_MAP, MOT_METRIC_MAP
    from nuscenes.eval.tracking.data_classes import (
        TrackingBox,
        TrackingConfig,
        TrackingMetricData,
        TrackingMetrics,
    )
    from nuscenes.eval.tracking.loaders import interpolate_tracks
    from nuscenes.eval.tracking.mot import MOTAccumulatorCustom as MOTAccumulator
    from nuscenes.eval.tracking.utils import create_motmetrics
except Exception as error:  # its tracking part raises unittest.SkipTest where a dependency is missing
    raise DualViewError(
        f"scoring needs nuscenes-devkit and it can't be imported ({error}): "
        "pip install --no-deps nuscenes-devkit==1.2.0 && pip install pyquaternion cachetools scikit-learn motmetrics"
    ) from error

__all__ = [
    "AVG_METRIC_MAP", "MOT_METRIC_MAP", "DetectionMetricData", "DetectionMetrics", "EvalBoxes", "MOTAccumulator", "TrackingConfig",
    "TrackingEvaluation", "TrackingMetricData", "TrackingMetrics", "accumulate", "calc_ap", "calc_tp", "center_distance",
    "create_motmetrics", "detection_boxes",
    "tracking_boxes",
]  # fmt: skip

_RACKS = ("bicycle_rack", "static_object.bicycle_rack")
_RACKED = ("bicycle", "motorcycle")


class _DetectionBox(DetectionBox):
    """The devkit's box without its check that the class is one of nuScenes' ten."""

    def __init__(
        self, detection_name: str, detection_score: float, attribute_name: str, **box: object
    ) -> None:
        EvalBox.__init__(self, **box)
        self.detection_name, self.detection_score = detection_name, detection_score
        self.attribute_name = attribute_name


def detection_boxes(keyframes: Sequence[Keyframe], protocol: Protocol) -> tuple[EvalBoxes, EvalBoxes]:
    """(labels, predictions) of all keyframes as the devkit takes them, filtered by range, points and bicycle racks."""
    truth, predicted = EvalBoxes(), EvalBoxes()
    for keyframe in keyframes:
        labels, predictions = _filtered(keyframe, protocol, protocol.class_ranges)
        for boxes, into in ((labels, truth), (predictions, predicted)):
            into.add_boxes(
                keyframe.token, [_DetectionBox(b.name, b.score, b.attribute, **b.geometry) for b in boxes]
            )
    return truth, predicted


def tracking_boxes(
    keyframes: Sequence[Keyframe], protocol: Protocol, distances: tuple[float, float] = (0.0, math.inf)
) -> tuple[dict, dict]:
    """(labels, predictions) as {drive: {stamp: [TrackingBox]}}, as the devkit's `create_tracks` makes them: filtered like detections,
    each track's score the mean of its boxes' scores, holes inside a track interpolated. distances: only boxes so far from the vehicle (m,
    from the first on, below the second). A `TrackingConfig` must have been made."""
    tracks: tuple[dict, dict] = (
        defaultdict(lambda: defaultdict(list)),
        defaultdict(lambda: defaultdict(list)),
    )
    for keyframe in keyframes:
        for boxes, into in zip(_filtered(keyframe, protocol, protocol.tracking_ranges), tracks, strict=True):
            into[keyframe.drive][keyframe.annotations.stamp_ns] = [
                TrackingBox(
                    tracking_id=b.identity, tracking_name=b.name, tracking_score=b.score, **b.geometry
                )
                for b in boxes
                if b.identity != "-1"  # a detection without identity is no track
                and distances[0] <= math.hypot(*b.geometry["ego_translation"][:2]) < distances[1]
            ]
    labels, predictions = tracks
    for drive in predictions.values():
        _average_scores(drive)
    return {d: interpolate_tracks(t) for d, t in labels.items()}, {
        d: interpolate_tracks(t) for d, t in predictions.items()
    }


def _average_scores(drive: dict) -> None:
    scores: dict[str, list[float]] = defaultdict(list)
    for boxes in drive.values():
        for box in boxes:
            scores[box.tracking_id].append(box.tracking_score)
    for boxes in drive.values():
        for box in boxes:
            box.tracking_score = float(np.mean(scores[box.tracking_id]))


@dataclass(frozen=True)
class _Box:
    """What the devkit's boxes are made of; `geometry` holds the arguments of its EvalBox."""

    name: str
    score: float
    attribute: str
    identity: str
    geometry: dict[str, Any]


def _filtered(
    keyframe: Keyframe, protocol: Protocol, ranges: Mapping[str, float]
) -> tuple[list[_Box], list[_Box]]:
    """(labels, predictions) that count: the devkit's filters by range and racks for both, by points for labels."""
    labels = keyframe.annotations
    racks = [i for i, label in enumerate(labels.boxes.label.tolist()) if labels.class_names[label] in _RACKS]
    rack_boxes = labels.boxes[torch.tensor(racks, dtype=torch.int64)]
    points = labels.num_lidar_points.tolist()
    truth = []
    label_names = [protocol.class_map.get(name, name) for name in labels.class_names]
    for i, name, geometry in _inside(keyframe, labels.boxes, label_names, ranges, rack_boxes):
        if points[i] != 0:  # -1, unknown, stays
            names = labels.attributes[i] if labels.attributes else ()
            attribute = next((a for a in names if a in KNOWN_ATTRIBUTES), "")
            geometry["num_pts"] = int(points[i])
            truth.append(_Box(name, -1.0, attribute, labels.instance_ids[i], geometry))
    if keyframe.prediction is None:
        return truth, []
    boxes = keyframe.prediction.boxes
    boxes = boxes[torch.argsort(boxes.score, descending=True, stable=True)[: protocol.max_boxes]]
    speed = boxes.velocity[:, :2].double().norm(dim=-1).tolist()
    predicted_names = [protocol.class_map.get(name, name) for name in keyframe.prediction.class_names]
    predicted = [
        _Box(name, float(boxes.score[i]), attribute_of(name, speed[i]), str(int(boxes.track_id[i])), geometry)
        for i, name, geometry in _inside(keyframe, boxes, predicted_names, ranges, rack_boxes)
    ]
    return truth, predicted


def _inside(
    keyframe: Keyframe, boxes: Boxes3D, names: Sequence[str], ranges: Mapping[str, float], racks: Boxes3D
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(index, class, EvalBox arguments) of boxes of scored classes nearer (in xy) than their range and in no bicycle rack.

    Boxes with numbers that aren't finite, or sizes that aren't above zero, are left out: the devkit can't take them.
    """
    center, half = boxes.center.double(), boxes.yaw.double() / 2
    offset = center - torch.from_numpy(keyframe.ego_position)
    distance = offset[:, :2].norm(dim=-1).tolist()
    finite = (
        center.isfinite().all(-1) & boxes.size.isfinite().all(-1) & half.isfinite() & boxes.score.isfinite()
    )
    valid = (finite & (boxes.size > 0).all(-1)).tolist()
    racked = racks.contains(center).any(0).tolist() if len(racks) else [False] * len(boxes)
    columns = zip(
        center.tolist(), boxes.size.double().tolist(), half.cos().tolist(), half.sin().tolist(),
        boxes.velocity.double().tolist(), offset.tolist(), strict=True,
    )  # fmt: skip
    for i, (position, (length, width, height), cos, sin, velocity, from_ego) in enumerate(columns):
        name = names[int(boxes.label[i])]
        if (
            not valid[i]
            or name not in ranges
            or not distance[i] < ranges[name]
            or (racked[i] and name in _RACKED)
        ):
            continue
        yield i, name, {
            "sample_token": keyframe.token, "translation": tuple(position), "size": (width, length, height),
            "rotation": (cos, 0.0, 0.0, sin), "velocity": tuple(velocity[:2]), "ego_translation": tuple(from_ego),
        }  # fmt: skip
