"""The quick accumulation of tracking events gives exactly what the devkit's own class gives on the same boxes."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import disturbed, drive, with_predictions

from dualview.evaluation import devkit
from dualview.evaluation.accumulation import ClassAccumulation
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.tracking import score_tracks, tracking_config


def lively(name: str, seed: int, frames: int = 12):
    """A drive with misses, switches, swapped identities, far boxes and a score level for each track."""
    level = torch.rand(20000, generator=torch.Generator().manual_seed(seed))

    def change(boxes, frame):
        identity = boxes.track_id.clone()
        if frame % 4 == 3:
            cars = (boxes.label == 0).nonzero()[:, 0]
            identity[cars] = identity[cars.flip(0)]
        return replace(
            boxes,
            track_id=identity,
            score=(0.8 * level[boxes.track_id] + 0.2 * boxes.score).clamp(0.01, 0.99),
        )

    keyframes = with_predictions(disturbed(drive(name, frames, per_class=3, seed=seed), seed + 50), change)
    for i, k in enumerate(keyframes):
        points = k.annotations.num_lidar_points.clone()
        points[(torch.arange(len(points)) + i) % 5 == 0] = 0  # holes in labels too
        center = k.annotations.boxes.center.clone()
        center[:, 0] += 8.0 * (i - frames / 2)  # objects that come into range and leave it
        keyframes[i] = replace(
            k, annotations=replace(k.annotations, num_lidar_points=points, boxes=replace(k.annotations.boxes, center=center)),
            prediction=replace(k.prediction, boxes=replace(k.prediction.boxes, center=k.prediction.boxes.center
                                                           + torch.tensor([8.0 * (i - frames / 2), 0.0, 0.0]))),
        )  # fmt: skip
    return keyframes


def several() -> list:
    nothing = with_predictions(lively("nothing found", 9, 4), lambda boxes, _: boxes[:0])
    unlabelled = [
        replace(k, annotations=replace(k.annotations, num_lidar_points=k.annotations.num_lidar_points * 0))
        for k in lively("no labels", 8, 4)
    ]
    return [*lively("first", 1), *nothing, *lively("second", 2), *unlabelled]


@pytest.mark.parametrize(
    "keyframes",
    [several(), drive(frames=4), with_predictions(drive(frames=3), lambda boxes, _: boxes[:0])],
    ids=["lively", "perfect", "empty"],
)
def test_every_number_at_every_threshold_is_the_devkits(keyframes):
    protocol = Protocol(recall_steps=12)
    config = tracking_config(protocol)
    switches = 0
    for name in config.class_names:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            labels, tracks = devkit.tracking_boxes(keyframes, protocol)
            theirs = devkit.TrackingEvaluation(
                labels, tracks, name, config.dist_fcn_callable, config.dist_th_tp, config.min_recall, protocol.recall_steps,
                config.metric_worst, verbose=False,
            ).accumulate()  # fmt: skip
            ours = ClassAccumulation(labels, tracks, name, config, protocol.recall_steps).accumulate()
        for metric in ("confidence", "recall_hypo", *devkit.TrackingMetricData.metrics):
            assert np.array_equal(ours.get_metric(metric), theirs.get_metric(metric), equal_nan=True), (
                name,
                metric,
            )
        switches += np.nansum(ours.ids)
    assert switches > 50 or keyframes[0].drive == "drive"


def test_switches_name_object_ids_and_instant():
    def switched(boxes, frame):
        if frame == 2:  # the pedestrian is lost for a keyframe, and found under another id
            return boxes[boxes.track_id != 5]
        return (
            boxes
            if frame < 3
            else replace(boxes, track_id=torch.where(boxes.track_id == 5, 77, boxes.track_id))
        )

    keyframes = with_predictions(drive(frames=6, per_class=1), switched)
    (switch,) = score_tracks(keyframes, Protocol()).switches
    assert (switch.class_name, switch.instance_id, switch.before, switch.after) == (
        "pedestrian",
        "drive-5",
        5,
        77,
    )
    # the devkit fills holes inside a track by interpolation, but this one ends before the hole
    assert (switch.last_ns, switch.stamp_ns) == tuple(keyframes[i].annotations.stamp_ns for i in (1, 3))
    assert switch.held == 2
    offset = keyframes[3].annotations.boxes.center[5].numpy() - keyframes[3].ego_position
    assert switch.distance == pytest.approx(np.hypot(*offset[:2]))


def test_switches_are_as_many_as_counted_and_the_longest_held_comes_first():
    scores = score_tracks(several(), Protocol())
    assert len(scores.switches) == scores.summary["ids"] > 5
    held = [s.held for s in scores.switches]
    assert held == sorted(held, reverse=True) and min(held) >= 1
