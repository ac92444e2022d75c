"""Tracking scores of cases that can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import EGO, drive, with_predictions

from dualview.evaluation.protocol import Protocol
from dualview.evaluation.tracking import score_tracks, score_tracks_by_range

PROTOCOL = Protocol()
FRAMES = 8


def test_perfect_tracks():
    scores = score_tracks(drive(frames=FRAMES), PROTOCOL)
    assert scores.summary["amota"] == pytest.approx(1.0)
    assert scores.summary["mota"] == pytest.approx(1.0)
    assert scores.summary["amotp"] == pytest.approx(
        0.0, abs=1e-5
    )  # the devkit takes distances by ||a||^2 - 2ab + ||b||^2
    assert [scores.summary[k] for k in ("ids", "fp", "fn", "frag")] == [0, 0, 0, 0]


def test_an_identity_that_changes_counts_once_a_track():
    def switched(boxes, frame):
        return boxes if frame < FRAMES // 2 else replace(boxes, track_id=boxes.track_id + 100)

    scores = score_tracks(with_predictions(drive(frames=FRAMES, per_class=2), switched), PROTOCOL)
    assert scores.summary["ids"] == 2 * 7  # two tracks in each of the seven classes
    count = 2 * FRAMES
    assert scores.classes["car"]["mota"] == pytest.approx(1 - 2 / count)


def test_swapped_identities_are_two_switches():
    def swapped(boxes, frame):
        if frame < 4:
            return boxes
        cars = (boxes.label == 0).nonzero()[:, 0]
        identities = boxes.track_id.clone()
        identities[cars] = identities[cars.flip(0)]
        return replace(boxes, track_id=identities, score=boxes.score.mean().expand_as(boxes.score))

    scores = score_tracks(with_predictions(drive(frames=FRAMES), swapped), PROTOCOL)
    assert scores.classes["car"]["ids"] == 2
    assert scores.classes["truck"]["ids"] == 0


def test_nothing_predicted_is_all_missed():
    scores = score_tracks(with_predictions(drive(frames=FRAMES), lambda boxes, _: boxes[:0]), PROTOCOL)
    assert scores.summary["amota"] == 0.0 and scores.summary["amotp"] == 2.0
    assert scores.classes["car"]["fn"] == 2 * FRAMES


def test_ranges_hold_the_parts_of_tracks_that_lie_in_them():
    keyframes = drive(frames=FRAMES)
    everything = replace(PROTOCOL, range_bins=((0.0, 1000.0), (1000.0, 2000.0)))
    (whole,) = score_tracks_by_range(keyframes, everything).values()  # nothing is as far as the second
    assert whole.summary == pytest.approx(score_tracks(keyframes, PROTOCOL).summary, nan_ok=True)

    def lost_far_away(boxes, frame):
        return boxes[(boxes.center - torch.as_tensor(EGO))[:, :2].norm(dim=1) < 15.0]

    bins = score_tracks_by_range(with_predictions(keyframes, lost_far_away), PROTOCOL)
    assert bins["0-15m"].summary["amota"] == pytest.approx(1.0)
    assert len(bins) > 1 and all(bins[name].summary["amota"] == 0.0 for name in bins if name != "0-15m")


def test_no_labels_at_all_is_not_a_number():
    keyframes = [replace(k, annotations=replace(k.annotations, num_lidar_points=torch.zeros_like(k.annotations.num_lidar_points)))
                 for k in drive(frames=3)]  # fmt: skip
    assert np.isnan(score_tracks(keyframes, PROTOCOL).summary["amota"])


def test_boxes_without_identity_are_no_tracks():
    plain = with_predictions(
        drive(frames=FRAMES), lambda boxes, _: replace(boxes, track_id=torch.full_like(boxes.track_id, -1))
    )
    assert score_tracks(plain, PROTOCOL).summary["amota"] == 0.0
