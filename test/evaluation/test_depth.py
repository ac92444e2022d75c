"""Depth errors of cases that can be worked out by hand, and matching that is the devkit's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import EGO, disturbed, drive, with_predictions

from dualview.evaluation import devkit
from dualview.evaluation.depth import depth_errors
from dualview.evaluation.matching import match_keyframes
from dualview.evaluation.metrics import compute_metrics
from dualview.evaluation.protocol import Protocol

PROTOCOL = Protocol()


def errors(keyframes, protocol=PROTOCOL):
    return depth_errors(match_keyframes(keyframes, protocol), protocol)


def stretched(metres: float = 0.0, share: float = 0.0, sideways: float = 0.0):
    """Predictions moved along the horizontal ray from the vehicle, and turned about it."""

    def change(boxes, _):
        offset = boxes.center - torch.from_numpy(EGO)
        flat = offset[:, :2]
        distance = flat.norm(dim=-1, keepdim=True)
        cos, sin = np.cos(sideways), np.sin(sideways)
        turned = torch.stack([cos * flat[:, 0] - sin * flat[:, 1], sin * flat[:, 0] + cos * flat[:, 1]], -1)
        moved = torch.cat([turned * (1 + share + metres / distance), offset[:, 2:] + 3.0], -1)
        return replace(boxes, center=moved + torch.from_numpy(EGO))

    return with_predictions(drive(), change)


def test_boxes_put_too_far_by_a_metre():
    found = errors(stretched(metres=1.0))
    assert found.overall.absolute == pytest.approx(1.0) and found.overall.bias == pytest.approx(1.0)
    assert found.overall.matches == 10 * 20
    assert found.classes["car"].matches == 20
    assert found.bins["15-30m"].relative < found.overall.relative < found.bins["0-15m"].relative
    assert sum(e.matches for e in found.bins.values()) == found.overall.matches
    assert sum(e.matches for e in found.bin_classes["0-15m"].values()) == found.bins["0-15m"].matches


def test_relative_error_and_sign():
    found = errors(stretched(share=-0.05))
    assert found.overall.relative == pytest.approx(0.05)
    assert found.overall.bias == pytest.approx(-found.overall.absolute) and found.overall.bias < 0


def test_errors_across_the_ray_are_no_depth_errors():
    assert errors(stretched(sideways=0.03)).overall.absolute == pytest.approx(0.0, abs=1e-9)


def test_nothing_found_is_not_a_number():
    found = errors(with_predictions(drive(), lambda boxes, _: boxes[:0]))
    assert found.overall.matches == 0 and np.isnan(found.overall.absolute)


def test_a_pair_belongs_to_the_bin_of_its_label():
    protocol = Protocol(range_bins=((0.0, 10.0), (10.0, 50.0)))
    found = errors(stretched(metres=1.5), protocol)
    labels = [
        (k.annotations.boxes.center[:, :2].numpy() - EGO[:2], k.annotations.boxes.label) for k in drive()
    ]
    near = sum(int((np.linalg.norm(xy, axis=1) < 10.0).sum()) for xy, _ in labels)
    assert found.bins["0-10m"].matches == near


def test_as_many_pairs_as_the_devkit_finds():
    keyframes = disturbed(drive(per_class=4))
    truth, predicted = devkit.detection_boxes(keyframes, PROTOCOL)
    matches = match_keyframes(keyframes, PROTOCOL)
    for name in PROTOCOL.class_ranges:
        data = devkit.accumulate(truth, predicted, name, devkit.center_distance, 2.0)
        pairs = [p for m in matches for p in m.pairs() if p[0].detection_name == name]
        # the devkit gives the cumulative mean of translation errors over falling scores; its last value is over all pairs
        mean = np.mean([devkit.center_distance(*p) for p in pairs])
        assert data.trans_err[data.max_recall_ind] == pytest.approx(mean, rel=0.02)
        assert data.max_recall_ind == int(100 * len(pairs) / sum(b.detection_name == name for b in truth.all))


def test_metrics_hold_depth_errors_overall_by_class_and_by_range():
    keyframes = stretched(metres=1.0)
    metrics, _ = compute_metrics([], keyframes, PROTOCOL)
    assert metrics["depth_error"]["mean_abs_m"] == pytest.approx(1.0)
    assert metrics["per_class"]["car"]["depth_error"]["matches"] == 20
    near = metrics["per_range"]["0-15m"]
    assert near["depth_error"]["bias_m"] == pytest.approx(1.0)
    assert near["per_class"]["car"].keys() >= {"ap", "ap_2m", "labels", "depth_error"}
    assert near["depth_error"]["mean_rel"] > metrics["per_range"]["15-30m"]["depth_error"]["mean_rel"]
