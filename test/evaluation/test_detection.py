"""Detection scores of cases that can be worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import CLASS_NAMES, disturbed, drive, with_predictions

from dualview.errors import ConfigError
from dualview.evaluation.detection import score_by_range, score_detections
from dualview.evaluation.protocol import Protocol, load_protocol
from dualview.scene.frame import Annotations

PROTOCOL = Protocol()


def test_perfect_boxes_score_one():
    scores = score_detections(drive(), PROTOCOL)
    assert scores.mean_ap == pytest.approx(1.0)
    assert scores.nds == pytest.approx(1.0, abs=1e-6)
    assert max(scores.errors.values()) < 1e-6
    assert np.isnan(scores.classes["traffic_cone"].errors["AVE"]) and np.isnan(
        scores.classes["barrier"].errors["AAE"]
    )


def test_shifted_boxes_count_from_the_threshold_above_the_shift_on():
    def shift(boxes, _):
        return replace(
            boxes, center=boxes.center + torch.tensor([0.0, 0.0, 9.0]) + torch.tensor([0.75, 0.0, 0.0])
        )

    scores = score_detections(with_predictions(drive(), shift), PROTOCOL)
    assert scores.classes["car"].average_precision == pytest.approx({0.5: 0.0, 1.0: 1.0, 2.0: 1.0, 4.0: 1.0})
    assert scores.mean_ap == pytest.approx(0.75)
    assert scores.errors["ATE"] == pytest.approx(0.75)  # height doesn't count
    assert scores.nds == pytest.approx((5 * 0.75 + 0.25 + 4) / 10)


def test_each_error_is_measured_as_defined():
    def worsen(boxes, _):
        return replace(
            boxes,
            size=boxes.size * 2,
            yaw=boxes.yaw + 0.25,
            velocity=boxes.velocity + torch.tensor([0.3, 0.4, 0.0]),
        )

    scores = score_detections(with_predictions(drive(), worsen), PROTOCOL)
    assert scores.errors["ASE"] == pytest.approx(1 - 1 / 8, abs=1e-6)
    assert scores.errors["AOE"] == pytest.approx(0.25, abs=1e-6)
    assert scores.errors["AVE"] == pytest.approx(0.5, abs=1e-6)
    assert scores.errors["AAE"] == 0.0  # still moving


def test_a_barrier_turned_round_is_the_same_and_a_car_is_not():
    turned = with_predictions(drive(), lambda boxes, _: replace(boxes, yaw=boxes.yaw + torch.pi))
    scores = score_detections(turned, PROTOCOL)
    assert scores.classes["barrier"].errors["AOE"] == pytest.approx(0.0, abs=1e-5)
    assert scores.classes["car"].errors["AOE"] == pytest.approx(np.pi, abs=1e-5)


def test_half_the_boxes_missing_and_no_false_alarm():
    def every_other(boxes, frame):
        return boxes if frame % 2 == 0 else boxes[:0]

    scores = score_detections(with_predictions(drive(frames=10), every_other), PROTOCOL)
    # precision 1 up to recall 0.5: indices 11..50 of 11..100, less the precision floor, which cancels
    assert scores.classes["car"].average_precision[2.0] == pytest.approx(40 / 90)


def test_a_keyframe_without_output_counts_as_missed():
    keyframes = [replace(k, prediction=None) if i % 2 else k for i, k in enumerate(drive(frames=10))]
    assert score_detections(keyframes, PROTOCOL).classes["bus"].average_precision[2.0] == pytest.approx(
        40 / 90
    )


def test_classes_without_labels_score_zero_as_in_nuscenes_and_are_left_out_of_present():
    keyframes = drive()
    cars = []
    for k in keyframes:
        keep = k.annotations.boxes.label == 0
        index = keep.nonzero()[:, 0].tolist()
        cars.append(replace(k, annotations=Annotations(
            k.annotations.stamp_ns, k.annotations.boxes[keep], CLASS_NAMES, tuple(k.annotations.instance_ids[i] for i in index),
            k.annotations.num_lidar_points[keep], k.annotations.visibility[keep], tuple(k.annotations.attributes[i] for i in index),
        )))  # fmt: skip
    scores = score_detections(cars, PROTOCOL)
    assert scores.mean_ap == pytest.approx(0.1)
    assert scores.present.mean_ap == pytest.approx(1.0)
    assert scores.present.nds == pytest.approx(1.0, abs=1e-6)


def test_labels_without_points_and_boxes_out_of_range_are_left_out():
    keyframes = [
        replace(k, annotations=replace(k.annotations, num_lidar_points=k.annotations.num_lidar_points * 0))
        for k in drive()
    ]
    assert score_detections(keyframes, PROTOCOL).present is None
    unknown = [
        replace(
            k,
            annotations=replace(
                k.annotations, num_lidar_points=torch.full_like(k.annotations.num_lidar_points, -1)
            ),
        )
        for k in drive()
    ]
    assert score_detections(unknown, PROTOCOL).mean_ap == pytest.approx(1.0)
    near = Protocol(class_ranges={**PROTOCOL.class_ranges, "car": 1.0})
    assert score_detections(drive(), near).classes["car"].label_count == 0


def test_bicycles_in_a_rack_are_left_out_of_labels_and_predictions():
    keyframes = []
    for k in drive():
        labels = k.annotations
        rack = replace(
            labels.boxes[:1],
            size=torch.tensor([[200.0, 200.0, 50.0]]),
            label=torch.tensor([len(CLASS_NAMES)]),
        )
        both = type(rack)(
            **{f: torch.cat([getattr(labels.boxes, f), getattr(rack, f)]) for f in rack.__dataclass_fields__}
        )
        keyframes.append(replace(k, annotations=replace(
            labels, boxes=both, class_names=(*CLASS_NAMES, "bicycle_rack"), instance_ids=(*labels.instance_ids, "rack"),
            num_lidar_points=torch.full((len(both),), 5), visibility=torch.ones(len(both)), attributes=(*labels.attributes, ()),
        )))  # fmt: skip
    scores = score_detections(keyframes, PROTOCOL)
    assert scores.classes["bicycle"].label_count == 0 and scores.classes["bicycle"].prediction_count == 0
    assert scores.classes["car"].average_precision[2.0] == pytest.approx(1.0)


def test_boxes_that_are_not_numbers_are_left_out():
    def broken(boxes, frame):
        center = boxes.center.clone()
        if frame == 0:
            center[0] = float("nan")
        return replace(boxes, center=center)

    scores = score_detections(with_predictions(drive(frames=10), broken), PROTOCOL)
    assert scores.classes["car"].prediction_count == scores.classes["car"].label_count - 1


def test_range_bins_hold_what_is_in_them():
    keyframes = disturbed(drive())
    bins = score_by_range(keyframes, PROTOCOL)
    whole = score_detections(keyframes, PROTOCOL)
    assert set(bins) <= {"0-15m", "15-30m", "30-50m"} and len(bins) >= 2
    assert (
        sum(s.classes["car"].label_count for s in bins.values() if "car" in s.classes)
        == whole.classes["car"].label_count
    )


def test_custom_classes(tmp_path):
    file = tmp_path / "two.yaml"
    file.write_text("class_ranges: {scooter: 20, car: 30}\ntracking_ranges: {scooter: 20}\n")
    protocol = load_protocol(file)
    keyframes = [
        replace(k, annotations=replace(k.annotations, class_names=("car", "scooter", *CLASS_NAMES[2:])),
                prediction=replace(k.prediction, class_names=("car", "scooter", *CLASS_NAMES[2:])))
        for k in drive()
    ]  # fmt: skip
    scores = score_detections(keyframes, protocol)
    assert list(scores.classes) == ["scooter", "car"] and scores.classes["scooter"].mean_ap == pytest.approx(
        1.0
    )
    file.write_text("class_range: {scooter: 20}\n")
    with pytest.raises(ConfigError, match="class_range"):
        load_protocol(file)
