"""The border to nuscenes-devkit: its modules, and our boxes in its classes.

The devkit's algorithms are used as they are (`accumulate`, `calc_ap`, `calc_tp`, `TrackingEvaluation`, `interpolate_tracks`); no nuScenes
tables are involved. It is installed without its dependency pins, which ask for an old NumPy it doesn't need.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace

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
except Exception as error:  # its tracking part raises unittest.SkipTest where a dependency is missing
    raise DualViewError(
        f"scoring needs nuscenes-devkit and it can't be imported ({error}): "
        "pip install --no-deps nuscenes-devkit==1.2.0 && pip install pyquaternion cachetools scikit-learn motmetrics"
    ) from error

__all__ = [
    "AVG_METRIC_MAP", "MOT_METRIC_MAP", "DetectionMetricData", "DetectionMetrics", "EvalBoxes", "TrackingConfig",
    "TrackingEvaluation", "TrackingMetricData", "TrackingMetrics", "accumulate", "calc_ap", "calc_tp", "center_distance",
    "detection_boxes",
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
        for boxes, into in zip(
            _devkit_boxes(keyframe, protocol, protocol.class_ranges), (truth, predicted), strict=True
        ):
            into.add_boxes(keyframe.token, [
                _DetectionBox(name, score, attribute, **box) for name, score, attribute, _, box in boxes
            ])  # fmt: skip
    return truth, predicted


def tracking_boxes(keyframes: Sequence[Keyframe], protocol: Protocol) -> tuple[dict, dict]:
    """(labels, predictions) as {drive: {stamp: [TrackingBox]}}, as the devkit's `create_tracks` makes them: filtered like detections,
    each track's score the mean of its boxes' scores, holes inside a track interpolated. A `TrackingConfig` must have been made."""
    result: list[dict] = []
    for which in (0, 1):
        tracks: dict = defaultdict(lambda: defaultdict(list))
        for keyframe in keyframes:
            boxes = _devkit_boxes(keyframe, protocol, protocol.tracking_ranges)[which]
            tracks[keyframe.drive][keyframe.annotations.stamp_ns] = [
                TrackingBox(tracking_id=identity, tracking_name=name, tracking_score=score, **box)
                for name, score, _, identity, box in boxes
                if identity != "-1"  # a detection without identity is no track
            ]
        if which == 1:
            for drive in tracks.values():
                _average_scores(drive)
        result.append({drive: interpolate_tracks(stamps) for drive, stamps in tracks.items()})
    return result[0], result[1]


def _average_scores(drive: dict) -> None:
    scores: dict[str, list[float]] = defaultdict(list)
    for boxes in drive.values():
        for box in boxes:
            scores[box.tracking_id].append(box.tracking_score)
    for boxes in drive.values():
        for box in boxes:
            box.tracking_score = float(np.mean(scores[box.tracking_id]))


def _devkit_boxes(keyframe: Keyframe, protocol: Protocol, ranges: dict) -> tuple[list, list]:
    """((name, score, attribute, identity, EvalBox fields) of labels, the same of predictions), filtered."""
    labels = keyframe.annotations
    racks = [i for i, label in enumerate(labels.boxes.label.tolist()) if labels.class_names[label] in _RACKS]
    rack_boxes = labels.boxes[torch.tensor(racks, dtype=torch.int64)]
    attributes = labels.attributes or ((),) * len(labels.boxes)
    truth = _select(keyframe, labels.boxes, labels.class_names, ranges, rack_boxes, SimpleNamespace(
        points=labels.num_lidar_points.tolist(), identities=labels.instance_ids,
        attributes=[next((a for a in names if a in KNOWN_ATTRIBUTES), "") for names in attributes],
    ))  # fmt: skip
    if keyframe.prediction is None:
        return truth, []
    boxes = keyframe.prediction.boxes
    best = torch.argsort(boxes.score, descending=True, stable=True)[: protocol.max_boxes]
    return truth, _select(keyframe, boxes[best], keyframe.prediction.class_names, ranges, rack_boxes, None)


def _select(
    keyframe: Keyframe,
    boxes: Boxes3D,
    names: Sequence[str],
    ranges: dict,
    racks: Boxes3D,
    label: SimpleNamespace | None,
) -> list[tuple]:
    """Filter and translate; `label` holds what only labels have, None for predictions.

    As the devkit does: xy distance below the class's range, no labels without points (-1, unknown, stays), nothing in a rack.
    """
    center, offset = boxes.center.double(), boxes.center.double() - torch.from_numpy(keyframe.ego_position)
    distance = offset[:, :2].norm(dim=-1).tolist()
    in_rack = racks.contains(center).any(0).tolist() if len(racks) else [False] * len(boxes)
    half, velocity = boxes.yaw.double() / 2, boxes.velocity.double()
    valid = (
        (boxes.size > 0).all(-1)
        & boxes.size.isfinite().all(-1)
        & center.isfinite().all(-1)
        & half.isfinite()
        & boxes.score.isfinite()
    )
    speed = velocity[:, :2].norm(dim=-1).tolist()
    size = boxes.size.double()[:, [1, 0, 2]].tolist()  # nuScenes' order: width, length, height
    cos, sin, offset, center, velocity = (
        half.cos().tolist(),
        half.sin().tolist(),
        offset.tolist(),
        center.tolist(),
        velocity.tolist(),
    )
    selected = []
    for i, name in enumerate(names[k] for k in boxes.label.tolist()):
        if name not in ranges or not distance[i] < ranges[name] or not valid[i]:
            continue
        if (in_rack[i] and name in _RACKED) or (label is not None and label.points[i] == 0):
            continue
        fields = dict(
            sample_token=keyframe.token, translation=tuple(center[i]), size=tuple(size[i]), rotation=(cos[i], 0.0, 0.0, sin[i]),
            velocity=tuple(velocity[i][:2]), ego_translation=tuple(offset[i]),
            num_pts=-1 if label is None else int(label.points[i]),
        )  # fmt: skip
        if label is None:
            score, attribute, identity = (
                float(boxes.score[i]),
                attribute_of(name, speed[i]),
                str(int(boxes.track_id[i])),
            )
        else:
            score, attribute, identity = -1.0, label.attributes[i], label.identities[i]
        selected.append((name, score, attribute, identity, fields))
    return selected
