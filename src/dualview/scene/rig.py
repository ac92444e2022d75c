"""Rig files: which cameras a vehicle has, and on which topics and frames its recordings and drivers speak.

One YAML file per rig, `config/rigs/<name>.yaml`; `config/rigs/template.yaml` explains every key. The node's
subscriptions, the launch remaps, the bag reader and the bag writer all come from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dualview.errors import CalibrationError, ConfigError, did_you_mean
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.resources import find_directories
from dualview.scene.calibration import CameraCalibration


@dataclass(frozen=True)
class CameraSpec:
    """One camera of a rig.

    image_topic carries `sensor_msgs/CompressedImage` if `compressed`, else `sensor_msgs/Image`. optical_frame
    None: whatever the images' headers say. calibration is used until (or, without a camera_info topic,
    instead of) what camera_info says. ego_from_camera [4, 4] float64 (m; camera = optical frame) replaces tf
    for this camera; None: tf says where it is.
    """

    name: str
    image_topic: str
    compressed: bool
    camera_info_topic: str | None = None
    optical_frame: str | None = None
    calibration: CameraCalibration | None = None
    ego_from_camera: np.ndarray | None = None

    @property
    def frame(self) -> str:
        """The optical frame's name: as given, else `<name>_optical_frame`."""
        return self.optical_frame or f"{self.name}_optical_frame"


@dataclass(frozen=True)
class Rig:
    """The cameras of a vehicle in their fixed order, and the frames and topics around them.

    anchor: the camera whose images open frames. lidar_topics, annotations_topic, annotations_2d_topic and
    class_names matter only to training and evaluation; class_map renames the classes of the recording's labels (before class_names
    picks from them). `assembler` overrides settings of the FrameAssembler (seconds, see AssemblerSettings).
    """

    name: str
    cameras: tuple[CameraSpec, ...]
    ego_frame: str = "base_link"
    world_frame: str = "odom"
    anchor: str | None = None
    lidar_topics: tuple[str, ...] = ()
    odometry_topic: str | None = "/odom"
    annotations_topic: str | None = "/annotations"
    annotations_2d_topic: str | None = "/{camera}/annotations_2d"
    class_names: tuple[str, ...] | None = None
    assembler: Mapping[str, float] = field(default_factory=dict)
    class_map: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cameras:
            raise ConfigError(f"rig '{self.name}' has no cameras: list at least one under 'cameras'")
        topics = [c.image_topic for c in self.cameras] + [
            c.camera_info_topic for c in self.cameras if c.camera_info_topic
        ]
        for what, values in (("camera", [c.name for c in self.cameras]), ("topic", topics)):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ConfigError(
                    f"rig '{self.name}' lists {what} {', '.join(twice)} more than once: each must be unique"
                )
        names = [c.name for c in self.cameras]
        if self.anchor is None:
            object.__setattr__(self, "anchor", names[0])
        elif self.anchor not in names:
            raise ConfigError(
                f"rig '{self.name}': the anchor '{self.anchor}' is not one of its cameras {', '.join(names)}"
            )

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras in the rig's order."""
        return tuple(camera.name for camera in self.cameras)

    def camera(self, name: str) -> CameraSpec:
        """The camera called `name`; raises ConfigError naming the cameras that there are."""
        for camera in self.cameras:
            if camera.name == name:
                return camera
        raise ConfigError(f"rig '{self.name}' has no camera '{name}'; it has {', '.join(self.camera_names)}")

    def annotations_2d_topic_of(self, camera: str) -> str | None:
        """Topic of a camera's 2D labels, or None if this rig has none."""
        return self.annotations_2d_topic.format(camera=camera) if self.annotations_2d_topic else None


def known_rigs() -> dict[str, Path]:
    """Name -> file of all rigs that come with the package (the template left out)."""
    found: dict[str, Path] = {}
    for folder in find_directories("config/rigs"):
        for file in sorted(folder.glob("*.yaml")):
            if file.stem != "template":
                found.setdefault(file.stem, file)
    return found


def load_rig(name_or_path: str | Path) -> Rig:
    """A rig by name ("nuscenes") or from a YAML file.

    Raises ConfigError for an unknown name (listing the known ones), unreadable YAML, unknown or missing keys
    (naming the file and the likely right key), values of the wrong kind, and cameras or topics listed twice.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and not path.is_file():
        rigs = known_rigs()
        if str(name_or_path) not in rigs:
            meant = did_you_mean(str(name_or_path), rigs)
            raise ConfigError(
                f"rig '{name_or_path}' is not known; {meant}{' ' if meant else ''}"
                f"known are {', '.join(rigs) or 'none'}. A path to a YAML file works too: copy "
                "config/rigs/template.yaml"
            )
        path = rigs[str(name_or_path)]
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the rig file {path} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"the rig file {path} is not valid YAML: {error}") from error
    return rig_from_dict(content, str(path), path.stem)


class _StrictLoader(yaml.SafeLoader):
    """YAML's safe loader that refuses a key given twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for i, key in enumerate(keys) if key in keys[:i]]
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{twice[0]}' is given twice", node.start_mark
            )
        return super().construct_mapping(node, deep)


_RIG_KEYS = {
    "name": str, "cameras": list, "ego_frame": str, "world_frame": str, "anchor": str, "lidar_topics": list,
    "odometry_topic": str, "annotations_topic": str, "annotations_2d_topic": str, "class_names": list,
    "assembler": dict, "class_map": dict,
}  # fmt: skip
_CAMERA_KEYS = {
    "name": str, "image_topic": str, "compressed": bool, "camera_info_topic": str, "optical_frame": str,
    "calibration": dict, "ego_from_camera": dict,
}  # fmt: skip
_CALIBRATION_KEYS = {
    "width": int,
    "height": int,
    "intrinsics": list,
    "distortion_model": str,
    "distortion": list,
}
_EXTRINSIC_KEYS = {"translation": list, "rotation_xyzw": list}
_ASSEMBLER_KEYS = {
    "max_skew": float, "max_wait": float, "camera_timeout": float, "max_gap": float, "min_cameras": int,
    "min_interval": float,
}  # fmt: skip
_NULLABLE = {
    "camera_info_topic",
    "optical_frame",
    "odometry_topic",
    "annotations_topic",
    "annotations_2d_topic",
}


def rig_from_dict(content: Any, source: str, default_name: str = "rig") -> Rig:
    """A Rig from the content of a rig file; `source` is named in errors. Raises ConfigError as `load_rig`
    does."""
    given = _checked(content, _RIG_KEYS, source, required=("cameras",))
    cameras = tuple(_camera(c, f"{source}: camera {i + 1}") for i, c in enumerate(given.pop("cameras")))
    for key in ("lidar_topics", "class_names"):
        if key in given:
            given[key] = tuple(_checked_strings(given[key], f"{source}: '{key}'"))
    if "class_map" in given:
        _checked_strings([*given["class_map"], *given["class_map"].values()], f"{source}: 'class_map'")
    if "assembler" in given:
        given["assembler"] = _checked(given["assembler"], _ASSEMBLER_KEYS, f"{source}: assembler")
    try:
        return Rig(given.pop("name", default_name), cameras, **given)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error


def _camera(content: Any, source: str) -> CameraSpec:
    given = _checked(content, _CAMERA_KEYS, source, required=("name", "image_topic"))
    source = f"{source} ({given['name']})"
    # image_transport's naming: the topic of a compressed image ends in /compressed
    given.setdefault("compressed", given["image_topic"].endswith("/compressed"))
    if "calibration" in given:
        given["calibration"] = _calibration(given["calibration"], f"{source}: calibration")
    if "ego_from_camera" in given:
        extrinsic = _checked(
            given["ego_from_camera"], _EXTRINSIC_KEYS, f"{source}: ego_from_camera", tuple(_EXTRINSIC_KEYS)
        )
        translation = _numbers(extrinsic["translation"], (3,), f"{source}: translation")
        rotation = _numbers(extrinsic["rotation_xyzw"], (4,), f"{source}: rotation_xyzw")
        try:
            given["ego_from_camera"] = rigid_from_quaternion(translation, rotation)
        except ValueError as error:
            raise ConfigError(f"{source}: ego_from_camera: {error}") from error
    return CameraSpec(**given)


def _calibration(content: Any, source: str) -> CameraCalibration:
    given = _checked(content, _CALIBRATION_KEYS, source, ("width", "height", "intrinsics"))
    values = _numbers(given["intrinsics"], (4, 9), f"{source}: intrinsics")
    matrix = values.reshape(3, 3) if len(values) == 9 else np.array(
        [[values[0], 0.0, values[2]], [0.0, values[1], values[3]], [0.0, 0.0, 1.0]])  # fmt: skip
    distortion = _numbers(given.get("distortion", []), None, f"{source}: distortion")
    try:
        return CameraCalibration(
            given["width"], given["height"], matrix, given.get("distortion_model", ""), distortion
        )
    except CalibrationError as error:
        raise ConfigError(f"{source}: {error}") from error


def _checked(
    content: Any, kinds: Mapping[str, type], source: str, required: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`content` as a dict whose keys are all in `kinds` and whose values are of these kinds; empty optional
    keys are left out."""
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected keys and values, got {type(content).__name__}")
    for key, value in content.items():
        if key not in kinds:
            hint = did_you_mean(str(key), kinds, f"known are {', '.join(kinds)}")
            raise ConfigError(f"{source}: unknown key '{key}'; {hint}")
        kind = kinds[key]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if (isinstance(value, bool) and kind is not bool) or not (
            fits or (value is None and key not in required)
        ):
            raise ConfigError(f"{source}: '{key}' must be of type {kind.__name__}, got {value!r}")
    missing = [key for key in required if key not in content]
    if missing:
        raise ConfigError(f"{source}: missing {', '.join(missing)}")
    return {key: value for key, value in content.items() if value is not None or key in _NULLABLE}


def _checked_strings(values: list[Any], source: str) -> list[str]:
    wrong = [v for v in values if not isinstance(v, str)]
    if wrong:
        raise ConfigError(f"{source} must be a list of names, got {wrong[0]!r} in it")
    return values


def _numbers(values: Any, lengths: tuple[int, ...] | None, source: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{source} must be a list of numbers, got {values!r}") from error
    if lengths and len(array) not in lengths:
        raise ConfigError(f"{source} must have {' or '.join(map(str, lengths))} numbers, got {len(array)}")
    return array
