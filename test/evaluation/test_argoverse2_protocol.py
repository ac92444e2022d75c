"""Argoverse 2's 26 classes, scored to 150 m."""

from dataclasses import replace

import pytest
import torch
from evaluation_drives import drive

from dualview.evaluation.detection import score_by_range, score_detections
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import load_protocol
from dualview.evaluation.tracking import score_tracks
from dualview.scene.class_maps import ARGOVERSE2_CLASSES

PROTOCOL = load_protocol("argoverse2")


def renamed(keyframe: Keyframe, away: float = 0.0, offset: float = 0.0) -> Keyframe:
    """The drive with its ten classes called by ten of Argoverse's names, all boxes `away` m further, predictions off by `offset`."""
    names = ARGOVERSE2_CLASSES[:10]
    shift = torch.tensor([away, 0.0, 0.0], dtype=torch.float64)
    labels, prediction = keyframe.annotations, keyframe.prediction
    boxes = replace(labels.boxes, center=labels.boxes.center + shift)
    found = replace(
        prediction.boxes,
        center=prediction.boxes.center + shift + torch.tensor([0.0, offset, 0.0]),
        velocity=prediction.boxes.velocity + 3.0,
    )
    return replace(
        keyframe,
        annotations=replace(labels, boxes=boxes, class_names=names),
        prediction=replace(prediction, boxes=found, class_names=names),
    )


def test_all_classes_to_150_m() -> None:
    assert tuple(PROTOCOL.class_ranges) == tuple(PROTOCOL.tracking_ranges) == ARGOVERSE2_CLASSES
    assert set(PROTOCOL.class_ranges.values()) == {150.0}
    assert PROTOCOL.range_bins[-1] == (100.0, 150.0) and PROTOCOL.max_boxes == 2600


def test_perfect_boxes_beyond_nuscenes_range_count() -> None:
    """A hundred metres away nuScenes' ranges would leave nothing; velocity isn't scored, so perfect is (5 + 3) / 10."""
    scores = score_detections([renamed(k, away=95.0) for k in drive()], PROTOCOL)
    assert scores.present is not None
    assert scores.present.mean_ap == pytest.approx(1.0)
    assert scores.present.nds == pytest.approx(0.8)
    assert scores.present.errors["AVE"] == scores.present.errors["AAE"] == 1.0


def test_beyond_150_m_nothing_counts() -> None:
    keyframes = [renamed(k, away=400.0) for k in drive()]
    assert score_detections(keyframes, PROTOCOL).present is None
    assert score_by_range(keyframes, PROTOCOL) == {}


def test_distance_errors_and_far_bins_and_tracks() -> None:
    keyframes = [renamed(k, away=95.0, offset=0.3) for k in drive()]
    scores = score_detections(keyframes, PROTOCOL)
    assert scores.present is not None and scores.present.errors["ATE"] == pytest.approx(0.3, abs=1e-6)
    assert scores.present.mean_ap == pytest.approx(1.0)
    assert "100-150m" in score_by_range(keyframes, PROTOCOL)
    tracks = score_tracks([renamed(k) for k in drive()], PROTOCOL)
    labelled = {name for name, c in scores.classes.items() if c.label_count}
    assert labelled and tracks.summary["ids"] == 0
