"""Waymo's three classes by nuScenes' metrics, with velocity and attribute errors set to 1."""

from dataclasses import replace

import pytest
import torch
from evaluation_drives import CLASS_NAMES, drive

from dualview.errors import ConfigError
from dualview.evaluation.detection import score_detections
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import load_protocol
from dualview.evaluation.tracking import score_tracks
from dualview.scene.class_maps import WAYMO_CLASSES
from dualview.scene.rig import load_rig


def moved(keyframe: Keyframe, offset: float) -> Keyframe:
    boxes = keyframe.prediction.boxes
    shifted = replace(
        boxes, center=boxes.center + torch.tensor([offset, 0.0, 0.0]), velocity=boxes.velocity + 5.0
    )
    return replace(keyframe, prediction=replace(keyframe.prediction, boxes=shifted))


def test_perfect_boxes_score_what_the_paper_s_formula_says() -> None:
    """All ten classes go in by their own names, three come out; a perfect detector reaches (5 + 3) / 10."""
    protocol = load_protocol("waymo")
    scores = score_detections(drive(), protocol)
    assert tuple(scores.classes) == WAYMO_CLASSES
    assert scores.mean_ap == pytest.approx(1.0)
    assert scores.errors["AVE"] == scores.errors["AAE"] == 1.0
    assert scores.nds == pytest.approx(0.8)
    vehicles = ("car", "truck", "bus", "trailer", "construction_vehicle", "motorcycle")
    labels = [name for k in drive() for name in (CLASS_NAMES[i] for i in k.annotations.boxes.label)]
    assert scores.classes["vehicle"].label_count == sum(name in vehicles for name in labels)
    assert scores.classes["cyclist"].label_count == labels.count("bicycle")


def test_nds_is_the_paper_s_sum_and_velocity_does_not_matter() -> None:
    scores = score_detections([moved(k, 0.3) for k in drive()], load_protocol("waymo"))
    three = sum(1 - scores.errors[name] for name in ("ATE", "ASE", "AOE"))
    assert scores.errors["ATE"] == pytest.approx(0.3, abs=1e-6)
    assert scores.nds == pytest.approx((5 * scores.mean_ap + three) / 10)


def test_table_two_of_the_paper_recomputes() -> None:
    """mAP, mATE, mASE, mAOE -> NDS, before and after fine-tuning."""
    for mean_ap, errors, nds in (
        (0.2979, (0.8169, 0.4753, 0.5821), 0.2615),
        (0.3100, (0.8061, 0.4752, 0.5761), 0.2693),
    ):
        assert (5 * mean_ap + sum(1 - e for e in errors)) / 10 == pytest.approx(nds, abs=1e-4)


def test_tracks_of_three_classes() -> None:
    scores = score_tracks(drive(), load_protocol("waymo"))
    assert scores.summary["amota"] == pytest.approx(1.0, abs=1e-6)


def test_rig_and_protocol_have_the_same_classes() -> None:
    rig, protocol = load_rig("waymo"), load_protocol("waymo")
    assert rig.class_names == tuple(protocol.class_ranges) == WAYMO_CLASSES
    assert dict(rig.class_map) == dict(protocol.class_map)
    with pytest.raises(ConfigError, match="nuscenes nor waymo"):
        load_protocol("kitti")
