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

ARGOVERSE2_CLASSES = (
    "REGULAR_VEHICLE", "PEDESTRIAN", "BOLLARD", "CONSTRUCTION_CONE", "CONSTRUCTION_BARREL", "STOP_SIGN", "BICYCLE",
    "LARGE_VEHICLE", "WHEELED_DEVICE", "BUS", "BOX_TRUCK", "SIGN", "TRUCK", "MOTORCYCLE", "BICYCLIST", "VEHICULAR_TRAILER",
    "TRUCK_CAB", "MOTORCYCLIST", "DOG", "SCHOOL_BUS", "WHEELED_RIDER", "STROLLER", "ARTICULATED_BUS",
    "MESSAGE_BOARD_TRAILER", "MOBILE_PEDESTRIAN_CROSSING_SIGN", "WHEELCHAIR",
)  # fmt: skip
"""The 26 classes of the Argoverse 2 detection task."""

ARGOVERSE2_UNSCORED = ("OFFICIAL_SIGNALER", "RAILED_VEHICLE", "TRAFFIC_LIGHT_TRAILER", "ANIMAL")
"""What Argoverse 2 labels beside them, too rarely to be scored."""

# Argoverse boxes a rider apart from what is ridden, nuScenes both in one box, of the class of the machine: so riders have no entry. Nor
# have what nuScenes doesn't detect (signs, bollards, prams, wheelchairs, scooters, dogs, trams) and drums, which are neither its cones nor
# its barriers for certain.
ARGOVERSE2_CLASS_MAP: Mapping[str, str] = {
    "REGULAR_VEHICLE": "car",
    "LARGE_VEHICLE": "truck",
    "BOX_TRUCK": "truck",
    "TRUCK": "truck",
    "TRUCK_CAB": "truck",
    "BUS": "bus",
    "SCHOOL_BUS": "bus",
    "ARTICULATED_BUS": "bus",
    "VEHICULAR_TRAILER": "trailer",
    "MESSAGE_BOARD_TRAILER": "trailer",
    "TRAFFIC_LIGHT_TRAILER": "trailer",
    "MOTORCYCLE": "motorcycle",
    "BICYCLE": "bicycle",
    "PEDESTRIAN": "pedestrian",
    "OFFICIAL_SIGNALER": "pedestrian",
    "CONSTRUCTION_CONE": "traffic_cone",
}
