"""PandaSet's cuboids in the project's terms: heading, size order, the ten classes, velocities, attributes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dualview.scene.convert.labels import LabelledBoxes, count_points, track_velocities
from dualview.scene.convert.pandaset_files import PandaSetSequence
from dualview.scene.convert.summary import ConversionSummary

CLASS_MAP = {
    "Car": "car", "Pickup Truck": "truck", "Medium-sized Truck": "truck", "Semi-truck": "truck", "Bus": "bus",
    "Other Vehicle - Construction Vehicle": "construction_vehicle", "Towed Object": "trailer",
    "Motorcycle": "motorcycle", "Motorized Scooter": "motorcycle", "Bicycle": "bicycle",
    "Pedestrian": "pedestrian", "Pedestrian with Object": "pedestrian", "Cones": "traffic_cone",
    "Temporary Construction Barriers": "barrier", "Road Barriers": "barrier",
}  # fmt: skip
"""PandaSet's labels -> the ten classes. Left out as in nuScenes' detection task: animals, signs, pylons,
rolling containers, trains, trams, emergency vehicles, pedicabs, personal mobility devices and uncommon
vehicles."""

_VEHICLES = {"car", "truck", "construction_vehicle", "bus", "trailer"}
_CYCLES = {"motorcycle", "bicycle"}
# which column of a cuboid says what nuScenes calls its attribute, for which classes
_ATTRIBUTES = (
    ("attributes.object_motion", _VEHICLES,
     {"Moving": "vehicle.moving", "Stopped": "vehicle.stopped", "Parked": "vehicle.parked"}),
    ("attributes.rider_status", _CYCLES,
     {"With Rider": "cycle.with_rider", "Without Rider": "cycle.without_rider"}),
    ("attributes.pedestrian_behavior", {"pedestrian"},
     {"Walking": "pedestrian.moving", "Standing": "pedestrian.standing",
      "Sitting": "pedestrian.sitting_lying_down", "Lying": "pedestrian.sitting_lying_down"}),
)  # fmt: skip


def read_labels(sequence: PandaSetSequence, summary: ConversionSummary) -> dict[int, LabelledBoxes]:
    """Frame number -> its boxes in the world frame, number of points unknown; missing files are reported."""
    tables: dict[int, Any] = {}
    for frame in sequence.frames:
        file = Path("annotations") / "cuboids" / f"{frame:02d}.pkl.gz"
        table = sequence.pickle(file, "label files", summary)
        if table is None:
            continue
        if "cuboids.sensor_id" in table:  # 1: the second LiDAR's twin of an object
            table = table[table["cuboids.sensor_id"] != 1]
        for label, rows in table[~table["label"].isin(list(CLASS_MAP))].groupby("label"):
            summary.passed_over[f"boxes of class '{label}', which isn't one of the ten classes"] += len(rows)
        tables[frame] = table[table["label"].isin(list(CLASS_MAP))]
    stamps = dict(zip(sequence.frames, sequence.stamps_ns.tolist(), strict=True))
    centers = [t[["position.x", "position.y", "position.z"]].to_numpy(np.float64) for t in tables.values()]
    instances = [[str(uuid) for uuid in table["uuid"]] for table in tables.values()]
    velocities = track_velocities([stamps[frame] for frame in tables], instances, centers)
    return {
        frame: _boxes(table, names, center, velocity)
        for (frame, table), names, center, velocity in zip(
            tables.items(), instances, centers, velocities, strict=True
        )
    }


def with_point_counts(boxes: LabelledBoxes, points: np.ndarray) -> LabelledBoxes:
    """The same boxes with the number of points [P, 3] (m, world) inside each."""
    return replace(boxes, num_points=count_points(points, boxes.center, boxes.size, boxes.yaw))


def _boxes(table: Any, instances: list[str], center: np.ndarray, velocity: np.ndarray) -> LabelledBoxes:
    classes = [CLASS_MAP[label] for label in table["label"]]
    attributes: list[list[str]] = [[] for _ in classes]
    for column, bearers, names in _ATTRIBUTES:
        if column in table:
            for row, (name, value) in enumerate(zip(classes, table[column], strict=True)):
                if name in bearers and value in names:
                    attributes[row].append(names[value])
    yaw = table["yaw"].to_numpy(np.float64)
    return LabelledBoxes(
        classes=classes,
        instances=instances,
        center=center,
        # dimensions.x is the width and yaw that of the width's axis: the heading is 90 degrees further
        size=table[["dimensions.y", "dimensions.x", "dimensions.z"]].to_numpy(np.float64),
        yaw=np.arctan2(np.cos(yaw), -np.sin(yaw)),
        velocity=velocity,
        num_points=np.full(len(classes), -1),
        visibility=np.full(len(classes), np.nan),
        attributes=attributes,
    )
