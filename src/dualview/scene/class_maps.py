"""Class lists that recordings, rigs and benchmarks share, and how one becomes the other."""

from __future__ import annotations

from collections.abc import Mapping

WAYMO_CLASSES = ("vehicle", "pedestrian", "cyclist")

# Waymo labels a motorcycle with its rider as a vehicle; cones and barriers are no objects there, so they have no entry.
WAYMO_CLASS_MAP: Mapping[str, str] = {
    "car": "vehicle",
    "truck": "vehicle",
    "bus": "vehicle",
    "trailer": "vehicle",
    "construction_vehicle": "vehicle",
    "motorcycle": "vehicle",
    "bicycle": "cyclist",
}

# COCO's categories that are road users, by nuScenes' names. COCO's "person" on a bicycle is a pedestrian here: 2D detectors box rider and
# bicycle apart, whereas 3D labels hold both in one box.
COCO_CLASS_MAP: Mapping[str, str] = {
    "person": "pedestrian",
    "bicycle": "bicycle",
    "car": "car",
    "motorcycle": "motorcycle",
    "bus": "bus",
    "truck": "truck",
}
