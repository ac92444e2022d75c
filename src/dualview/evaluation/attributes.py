"""nuScenes' attributes by rule, for detectors without an attribute head."""

from __future__ import annotations

_VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
_CYCLES = ("bicycle", "motorcycle")

MOVING_SPEED = 0.2  # m/s, as BEVDet and Sparse4D have it
KNOWN_ATTRIBUTES = (
    "pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing", "cycle.with_rider", "cycle.without_rider",
    "vehicle.moving", "vehicle.parked", "vehicle.stopped",
)  # fmt: skip


def attribute_of(class_name: str, speed: float) -> str:
    """The likeliest attribute of an object of this class at this speed (m/s); "" for classes that have none.

    An unknown speed (NaN) counts as standing.
    """
    moving = speed > MOVING_SPEED
    if class_name in _VEHICLES:
        return "vehicle.moving" if moving else "vehicle.parked"
    if class_name in _CYCLES:
        return "cycle.with_rider" if moving else "cycle.without_rider"
    if class_name == "pedestrian":
        return "pedestrian.moving" if moving else "pedestrian.standing"
    return ""
