"""What counts as a right box: classes, ranges and thresholds of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from dualview.errors import ConfigError
from dualview.evaluation.protocol_checks import check_values
from dualview.scene.class_maps import ARGOVERSE2_CLASSES, WAYMO_CLASS_MAP

_VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
# detected but not tracked in nuScenes
_UNTRACKED = ("construction_vehicle", "traffic_cone", "barrier")


@dataclass(frozen=True)
class Protocol:
    """How boxes are filtered, matched and summed up; the defaults are nuScenes' (detection_cvpr_2019, tracking_nips_2019).

    class_ranges, tracking_ranges: class -> largest horizontal distance from the ego vehicle, m (exclusive), of the classes that are
    scored. undefined_errors: class -> true-positive errors that mean nothing for it. range_bins: distances (m) between which the
    results are also given apart. tolerance_s: how far a frame's stamp may be from a keyframe's. keyframe_interval_s: keyframes that
    follow faster are left out (0 = none); 0.5 gives nuScenes' rate on recordings that are labelled more often. class_map: other name ->
    scored class, for labels and predictions alike. constant_errors: true-positive errors that aren't measured but set, for every class.
    """

    name: str = "nuscenes"
    class_ranges: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(_VEHICLES, 50.0),
            **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40.0),
            **dict.fromkeys(("traffic_cone", "barrier"), 30.0),
        }
    )
    tracking_ranges: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(("car", "truck", "bus", "trailer"), 50.0),
            **dict.fromkeys(("pedestrian", "motorcycle", "bicycle"), 40.0),
        }
    )
    undefined_errors: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "traffic_cone": ("attr_err", "vel_err", "orient_err"),
            "barrier": ("attr_err", "vel_err"),
        }
    )
    distance_thresholds: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    true_positive_threshold: float = 2.0
    min_recall: float = 0.1
    min_precision: float = 0.1
    max_boxes: int = 500
    mean_ap_weight: float = 5.0
    recall_steps: int = 40
    range_bins: tuple[tuple[float, float], ...] = ((0.0, 15.0), (15.0, 30.0), (30.0, 50.0))
    tolerance_s: float = 0.05
    keyframe_interval_s: float = 0.0
    class_map: Mapping[str, str] = field(default_factory=dict)
    constant_errors: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_values(self)
        if self.true_positive_threshold not in self.distance_thresholds:
            raise ConfigError(
                f"protocol '{self.name}': true_positive_threshold {self.true_positive_threshold:g} must be one of "
                f"distance_thresholds {list(self.distance_thresholds)}"
            )
        if not self.class_ranges:
            raise ConfigError(f"protocol '{self.name}' has no classes: list at least one under class_ranges")


def waymo_protocol() -> Protocol:
    """nuScenes' metrics on Waymo's three classes, as "2D supervised fine-tuning" (Table II) has them: velocity and attribute errors are 1,
    so NDS = (5 mAP + the scores of translation, scale and orientation) / 10. nuScenes' ranges are assumed."""
    ranges = {"vehicle": 50.0, "pedestrian": 40.0, "cyclist": 40.0}
    return Protocol(
        name="waymo",
        class_ranges=ranges,
        tracking_ranges=ranges,
        undefined_errors={},
        class_map=WAYMO_CLASS_MAP,
        constant_errors={"vel_err": 1.0, "attr_err": 1.0},
    )


def argoverse2_protocol() -> Protocol:
    """Argoverse 2's 26 classes to 150 m at 2 Hz (every fifth labelled sweep), average precision over the whole of precision and recall,
    velocity and attribute errors set to 1 since they aren't scored there. What differs from Argoverse's own tool: true-positive errors are
    averaged over recall as nuScenes does, its 150 m are in the plane, and nothing is filtered by the map."""
    ranges = dict.fromkeys(ARGOVERSE2_CLASSES, 150.0)
    return Protocol(
        name="argoverse2",
        class_ranges=ranges,
        tracking_ranges=ranges,
        undefined_errors={},
        min_recall=0.0,
        min_precision=0.0,
        max_boxes=100 * len(ranges),
        range_bins=((0.0, 50.0), (50.0, 100.0), (100.0, 150.0)),
        keyframe_interval_s=0.5,
        constant_errors={"vel_err": 1.0, "attr_err": 1.0},
    )


_NAMED = {"nuscenes": Protocol, "waymo": waymo_protocol, "argoverse2": argoverse2_protocol}


def load_protocol(name_or_path: str | Path = "nuscenes") -> Protocol:
    """A protocol by name (nuscenes, waymo, argoverse2), or from a YAML file whose keys are the fields of `Protocol` (absent = nuScenes').
    A file that lists class_ranges but no tracking_ranges tracks the same classes, without those that nuScenes doesn't track.

    Raises ConfigError naming the wrong key.
    """
    if str(name_or_path) in _NAMED:
        return _NAMED[str(name_or_path)]()
    path = Path(name_or_path)
    if not path.is_file():
        raise ConfigError(
            f"protocol '{name_or_path}' is neither {' nor '.join(_NAMED)} nor a YAML file: check the path"
        )
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    known = [f.name for f in fields(Protocol)]
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold keys and their values; known are {', '.join(known)}")
    wrong = [key for key in content if key not in known]
    if wrong:
        raise ConfigError(f"{path}: unknown {', '.join(map(str, wrong))}; known are {', '.join(known)}")
    for key in ("distance_thresholds", "range_bins"):
        if key in content:
            content[key] = tuple(tuple(v) if isinstance(v, list) else v for v in content[key])
    if isinstance(content.get("class_ranges"), dict) and "tracking_ranges" not in content:
        content["tracking_ranges"] = {n: r for n, r in content["class_ranges"].items() if n not in _UNTRACKED}
    return Protocol(**{"name": path.stem, **content})
