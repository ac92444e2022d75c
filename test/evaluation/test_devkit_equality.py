"""The same boxes through nuscenes-devkit's own road (tables and a results file on disk) give the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_drives import EGO, disturbed, drive
from PIL import Image

from dualview.evaluation.attributes import attribute_of
from dualview.evaluation.detection import ERROR_NAMES, score_detections
from dualview.evaluation.keyframes import Keyframe
from dualview.evaluation.protocol import Protocol
from dualview.evaluation.tracking import score_tracks

CATEGORIES = {
    "car": "vehicle.car", "truck": "vehicle.truck", "bus": "vehicle.bus.rigid", "trailer": "vehicle.trailer",
    "construction_vehicle": "vehicle.construction", "pedestrian": "human.pedestrian.adult", "motorcycle": "vehicle.motorcycle",
    "bicycle": "vehicle.bicycle", "traffic_cone": "movable_object.trafficcone", "barrier": "movable_object.barrier",
}  # fmt: skip
VERSION = "v1.0-handmade"


def write_tables(root, drives: dict[str, list[Keyframe]]) -> None:
    """Hand-made drives as a nuScenes data root with a split called "handmade" that holds them all."""
    tables: dict[str, list[dict]] = {
        "category": [{"token": c, "name": c, "description": ""} for c in CATEGORIES.values()],
        "attribute": [], "visibility": [{"token": "4", "level": "v80-100", "description": ""}], "instance": [],
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [{"token": "lidar", "sensor_token": "lidar", "translation": [0, 0, 0], "rotation": [1, 0, 0, 0],
                               "camera_intrinsic": []}],
        "ego_pose": [], "log": [{"token": "log", "logfile": "", "vehicle": "", "date_captured": "", "location": "singapore-onenorth"}],
        "scene": [], "sample": [], "sample_data": [], "sample_annotation": [],
        "map": [{"token": "map", "log_tokens": ["log"], "category": "semantic_prior", "filename": "blank.png"}],
    }  # fmt: skip
    attributes = set()
    for name, keyframes in drives.items():
        tokens = [k.token for k in keyframes]
        tables["scene"].append({"token": name, "log_token": "log", "nbr_samples": len(tokens), "first_sample_token": tokens[0],
                                "last_sample_token": tokens[-1], "name": name, "description": ""})  # fmt: skip
        for i, keyframe in enumerate(keyframes):
            labels, token = keyframe.annotations, keyframe.token
            link = {"prev": tokens[i - 1] if i else "", "next": tokens[i + 1] if i + 1 < len(tokens) else ""}
            tables["sample"].append(
                {"token": token, "timestamp": labels.stamp_ns // 1000, "scene_token": name, **link}
            )
            tables["ego_pose"].append({"token": token, "timestamp": labels.stamp_ns // 1000, "rotation": [1, 0, 0, 0],
                                       "translation": EGO.tolist()})  # fmt: skip
            tables["sample_data"].append({"token": token, "sample_token": token, "ego_pose_token": token, "is_key_frame": True,
                                          "calibrated_sensor_token": "lidar", "timestamp": labels.stamp_ns // 1000, "fileformat": "pcd",
                                          "height": 0, "width": 0, "filename": "", **link})  # fmt: skip
            for j, (instance, box) in enumerate(
                zip(labels.instance_ids, range(len(labels.boxes)), strict=True)
            ):
                category = CATEGORIES[labels.class_names[int(labels.boxes.label[box])]]
                attributes |= set(labels.attributes[j])
                neighbour = [f"{t}/{instance}" if t else "" for t in (link["prev"], link["next"])]
                yaw = float(labels.boxes.yaw[box]) / 2
                if i == 0:
                    last = f"{tokens[-1]}/{instance}"
                    tables["instance"].append({"token": instance, "category_token": category, "nbr_annotations": len(tokens),
                                               "first_annotation_token": f"{token}/{instance}", "last_annotation_token": last})  # fmt: skip
                tables["sample_annotation"].append({
                    "token": f"{token}/{instance}", "sample_token": token, "instance_token": instance, "visibility_token": "4",
                    "attribute_tokens": list(labels.attributes[j]), "translation": labels.boxes.center[box].tolist(),
                    "size": labels.boxes.size[box][[1, 0, 2]].tolist(), "rotation": [np.cos(yaw), 0, 0, np.sin(yaw)],
                    "prev": neighbour[0], "next": neighbour[1], "num_radar_pts": 0,
                    "num_lidar_pts": int(labels.num_lidar_points[box]),
                })  # fmt: skip
    tables["attribute"] = [{"token": a, "name": a, "description": ""} for a in sorted(attributes)]
    Image.new("L", (4, 4)).save(root / "blank.png")
    folder = root / VERSION
    folder.mkdir()
    for table, rows in tables.items():
        (folder / f"{table}.json").write_text(json.dumps(rows))
    (folder / "splits.json").write_text(json.dumps({"handmade": list(drives)}))


def write_results(file, keyframes: list[Keyframe], tracking: bool) -> None:
    """A results file in nuScenes' submission format."""
    results = {}
    for k in keyframes:
        boxes, names = k.prediction.boxes, k.prediction.class_names
        results[k.token] = []
        for i, name in enumerate(names[n] for n in boxes.label.tolist()):
            yaw, speed = float(boxes.yaw[i]) / 2, float(boxes.velocity[i, :2].double().norm())
            common = {"sample_token": k.token, "translation": boxes.center[i].tolist(), "size": boxes.size[i][[1, 0, 2]].tolist(),
                      "rotation": [np.cos(yaw), 0, 0, np.sin(yaw)], "velocity": boxes.velocity[i, :2].tolist()}  # fmt: skip
            if not tracking:
                results[k.token].append({**common, "detection_name": name, "detection_score": float(boxes.score[i]),
                                         "attribute_name": attribute_of(name, speed)})  # fmt: skip
            elif name in Protocol().tracking_ranges:
                results[k.token].append({**common, "tracking_name": name, "tracking_score": float(boxes.score[i]),
                                         "tracking_id": str(int(boxes.track_id[i]))})  # fmt: skip
    file.write_text(json.dumps({"meta": {"use_camera": True}, "results": results}))


@pytest.fixture(scope="module")
def drives(tmp_path_factory):
    """Two drives with everything that a protocol must deal with, as keyframes and as a data root with velocities of its own."""
    from nuscenes import NuScenes

    drives = {
        name: disturbed(drive(name, frames=8, seed=s), seed=s + 10)
        for s, name in enumerate(("first", "second"))
    }
    for name, keyframes in drives.items():
        # a class without labels, labels without points, holes in tracks, labels out of range
        for i, k in enumerate(keyframes):
            points = k.annotations.num_lidar_points.clone()
            points[(torch.arange(len(points)) + i) % 4 == 0] = 0
            points[k.annotations.boxes.label == 3] = 0
            center = k.annotations.boxes.center.clone()
            center[5] += 60.0
            labels = replace(k.annotations, num_lidar_points=points, boxes=replace(k.annotations.boxes, center=center),
                             instance_ids=tuple(f"{name}-{t}" for t in k.annotations.instance_ids))  # fmt: skip
            keyframes[i] = replace(k, annotations=labels)
    root = tmp_path_factory.mktemp("nuscenes")
    write_tables(root, drives)
    nusc = NuScenes(VERSION, str(root), verbose=False)
    for keyframes in drives.values():  # nuScenes takes a label's velocity from its neighbours
        for i, k in enumerate(keyframes):
            velocity = [nusc.box_velocity(f"{k.token}/{instance}") for instance in k.annotations.instance_ids]
            boxes = replace(k.annotations.boxes, velocity=torch.from_numpy(np.stack(velocity)))
            keyframes[i] = replace(k, annotations=replace(k.annotations, boxes=boxes))
    return root, nusc, [k for keyframes in drives.values() for k in keyframes]


def test_detection_scores_equal_the_devkits(drives, tmp_path):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    _, nusc, keyframes = drives
    write_results(tmp_path / "results.json", keyframes, tracking=False)
    config = config_factory("detection_cvpr_2019")
    theirs, _ = DetectionEval(
        nusc, config, str(tmp_path / "results.json"), "handmade", str(tmp_path), verbose=False
    ).evaluate()
    ours = score_detections(keyframes, Protocol())
    assert 0.2 < ours.mean_ap < 0.9  # a case worth comparing
    assert ours.mean_ap == pytest.approx(theirs.mean_ap, abs=1e-6)
    assert ours.nds == pytest.approx(theirs.nd_score, abs=1e-6)
    for error, name in ERROR_NAMES.items():
        assert ours.errors[name] == pytest.approx(theirs.tp_errors[error], abs=1e-6)
    for name, scores in ours.classes.items():
        for threshold, value in scores.average_precision.items():
            assert value == pytest.approx(theirs.get_label_ap(name, threshold), abs=1e-6)


def test_tracking_scores_equal_the_devkits(drives, tmp_path):
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.tracking.evaluate import TrackingEval

    root, _, keyframes = drives
    write_results(tmp_path / "results.json", keyframes, tracking=True)
    evaluation = TrackingEval(
        config_factory("tracking_nips_2019"),
        str(tmp_path / "results.json"),
        "handmade",
        str(tmp_path),
        VERSION,
        str(root),
        verbose=False,
    )
    theirs, _ = evaluation.evaluate()
    ours = score_tracks(keyframes, Protocol())
    assert 0.1 < ours.summary["amota"] < 0.9 and ours.summary["ids"] > 0
    for metric, value in ours.summary.items():
        assert value == pytest.approx(theirs.compute_metric(metric), abs=1e-6, nan_ok=True), metric
    for name, values in ours.classes.items():
        for metric, value in values.items():
            assert value == pytest.approx(theirs.compute_metric(metric, name), abs=1e-6, nan_ok=True), (
                name,
                metric,
            )
