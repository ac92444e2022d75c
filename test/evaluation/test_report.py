"""metrics.json, the page and its curves from hand-made drives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_drives import disturbed, drive, with_predictions

from dualview.evaluation.metrics import compute_metrics, headline
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.report import write_report
from dualview.evaluation.run import Drive
from dualview.evaluation.worst_frames import worst_frames
from dualview.scene.rig import load_rig


def as_drive(keyframes, **options) -> Drive:
    return Drive(
        "drive",
        Path("drive.mcap"),
        [k.prediction for k in keyframes if k.prediction],
        "test weights",
        **options,
    )


@pytest.fixture(scope="module")
def scored():
    keyframes = disturbed(drive(frames=6))
    drives = [as_drive(keyframes, dropped={"no transform": 2}, latency_ms={"network": [1.0, 2.0, 3.0]})]
    return keyframes, drives, *compute_metrics(drives, keyframes, Protocol())


def test_metrics_hold_what_is_promised_and_are_json(scored, tmp_path):
    keyframes, drives, metrics, detection = scored
    page = write_report(
        tmp_path, metrics, detection, drives, keyframes, load_rig("nuscenes"), Protocol(), pictures=0
    )
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert read.keys() >= {"mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE", "mAAE", "AMOTA", "AMOTP", "MOTA", "IDS", "per_class",
                           "per_range", "latency_ms", "weights", "frames", "frames_dropped", "keyframes", "protocol"}  # fmt: skip
    assert read["per_class"]["car"].keys() >= {
        "ap",
        "ap_0.5m",
        "ap_1m",
        "ap_2m",
        "ap_4m",
        "ATE",
        "AMOTA",
        "IDS",
        "labels",
    }
    assert (
        read["per_class"]["traffic_cone"]["AVE"] is None and "AMOTA" not in read["per_class"]["traffic_cone"]
    )
    near = read["per_range"]["0-15m"]
    assert near["per_class"]["car"].keys() >= {"ap_2m", "ATE", "AOE", "AVE", "AMOTA", "IDS"} and "AMOTA" in near
    assert read["mAP"] == pytest.approx(sum(c["ap"] for c in read["per_class"].values()) / 10)
    assert read["weights"] == ["test weights"] and read["frames_dropped"] == {"no transform": 2}
    assert isinstance(read["IDS"], int) and read["latency_ms"]["network"]["p50"] == 2.0
    text = page.read_text()
    assert f"{read['mAP']:.3f}" in text and "2 × no transform" in text and "| car |" in text
    assert (tmp_path / "precision_recall.png").stat().st_size > 5000


def test_without_labels_there_are_no_scores_but_everything_else(tmp_path):
    keyframes = drive(frames=3)
    drives = [as_drive(keyframes)]
    metrics, detection = compute_metrics(drives, [], Protocol())
    assert detection is None and metrics["scored"] is False and "mAP" not in metrics
    page = write_report(tmp_path, metrics, detection, drives, [], load_rig("nuscenes"), Protocol())
    assert "no labels" in page.read_text() and "no labels" in dict(headline(metrics))["scores"]


def test_the_worst_frames_are_those_with_most_errors():
    keyframes = drive(frames=6, interval_s=1.0)
    spoiled = with_predictions(keyframes, lambda boxes, i: boxes[: len(boxes) - 3 * i])
    worst = worst_frames(spoiled, Protocol(), 2)
    assert [w.keyframe.annotations.stamp_ns for w in worst] == [
        keyframes[i].annotations.stamp_ns for i in (5, 4)
    ]
    assert (worst[0].misses, worst[0].false_alarms) == (15, 0)
    assert worst_frames(keyframes, Protocol(), 2) == []
    shifted = with_predictions(keyframes, lambda b, i: replace(b, center=b.center + 100.0 * (i == 2)))
    assert worst_frames(shifted, Protocol(), 1)[0].keyframe is shifted[2]


def test_labels_without_attributes_are_noted():
    keyframes = [replace(k, annotations=replace(k.annotations, attributes=())) for k in drive(frames=3)]
    metrics, _ = compute_metrics([as_drive(keyframes)], keyframes, Protocol())
    assert "AAE counts as 1" in metrics["note"] and metrics["mAAE"] == 1.0
