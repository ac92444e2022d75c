"""nuScenes (Motional; Caesar et al., CVPR 2020), read with nuscenes-devkit -> a recording.

What is translated, and how:

- World: nuScenes' global frame is `map`; the ego frame (rear axle on the ground, x forward) is `base_link`.
  Stamps are the tables', in ns.
- All images and LiDAR sweeps of the scene, keyframes and those between. Each is preceded by the ego pose that
  the tables give for its own stamp. Calibrations and mountings are the scene's. Radars are left out.
- Labels at keyframes, stamped like the sample: sizes (w, l, h) become (length, width, height), the heading is
  the rotated x axis, velocities are the devkit's `box_velocity` (NaN where it can't tell), classes the ten of
  the detection task and bicycle racks, in which scoring counts nothing (others are counted and left out),
  instance names the instance tokens. Visibility levels become the middle of their range (0.2, 0.5, 0.7, 0.9).
  Points are LiDAR's; -1, unknown, where it has none and a radar has, since such boxes count in scores.

Files that the tables name but the data root lacks are reported and passed over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dualview.errors import BagError
from dualview.geometry.rigid import rigid_from_quaternion
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.convert.labels import DETECTION_CLASSES, LabelledBoxes
from dualview.scene.convert.summary import ConversionSummary
from dualview.scene.convert.trajectory import Trajectory
from dualview.scene.frame import Annotations
from dualview.scene.rig import Rig, load_rig

_RACK = "bicycle_rack"
_VISIBILITY = {"v0-40": 0.2, "v40-60": 0.5, "v60-80": 0.7, "v80-100": 0.9}
_CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")


def open_tables(dataroot: str | Path, version: str | None = None) -> Any:
    """The devkit's `NuScenes` object. version: a folder of the data root, default the only one there.

    Raises BagError if the devkit isn't installed or the data root doesn't hold these tables.
    """
    dataroot = Path(dataroot)
    versions = sorted(p.parent.name for p in dataroot.glob("*/scene.json"))
    if version is None and len(versions) == 1:
        version = versions[0]
    if version not in versions:
        asked = f"tables '{version}'" if version else "one set of tables"
        raise BagError(
            f"{dataroot} does not hold {asked}; it has {', '.join(versions) or 'none'}. Name one with "
            "--version"
        )
    try:
        from nuscenes.nuscenes import NuScenes
    except ImportError as error:
        raise BagError(
            "reading nuScenes needs its devkit, whose own requirements are out of date: "
            "pip install --no-deps nuscenes-devkit==1.2.0 && pip install pyquaternion cachetools "
            f"scikit-learn tqdm ({error})"
        ) from error
    try:
        return NuScenes(version=version, dataroot=str(dataroot), verbose=False)
    except (AssertionError, OSError, KeyError, ValueError) as error:
        raise BagError(f"the nuScenes tables in {dataroot / str(version)} can't be read: {error}") from error


def convert_nuscenes(
    dataroot: str | Path, target: str | Path, scene: str, version: str | None = None, rig: Rig | None = None,
    overwrite: bool = False,
) -> ConversionSummary:  # fmt: skip
    """Write one nuScenes scene ("scene-0061") to the recording `target` (.mcap).

    rig: default the rig `nuscenes`; its cameras are named like nuScenes' channels in lower case. Raises
    BagError if the tables or the scene aren't there, or the recording can't be written.
    """
    rig = rig or load_rig("nuscenes")
    tables = open_tables(dataroot, version)
    summary = ConversionSummary()
    channels = {camera.name.upper(): camera.name for camera in rig.cameras}
    records = scene_records(tables, scene, (*channels, "LIDAR_TOP"))
    absent = [
        channel for channel in (*channels, "LIDAR_TOP") if channel not in {r["channel"] for r in records}
    ]
    for channel in absent:
        summary.pass_over("sensors that the scene doesn't have", channel)
    if not records:
        raise BagError(f"{scene} has no data of the sensors {', '.join(channels)}, LIDAR_TOP")
    trajectory = _trajectory(tables, records)
    mountings: dict[str, np.ndarray] = {}
    for record in records:
        camera = channels.get(record["channel"])
        frame = rig.camera(camera).frame if camera else record["channel"].lower()
        mounting = _matrix(tables.get("calibrated_sensor", record["calibrated_sensor_token"]))
        if not np.allclose(mountings.setdefault(frame, mounting), mounting):
            summary.pass_over("changes of a sensor's mounting within the scene", frame)
    keyframes = _keyframes(tables, scene)
    odometry_channel = "LIDAR_TOP" if "LIDAR_TOP" not in absent else records[0]["channel"]

    with BagWriter(target, rig, overwrite) as bag:
        bag.static_transforms(records[0]["timestamp"] * 1000, mountings)
        for record in records:
            stamp, channel = record["timestamp"] * 1000, record["channel"]
            pose = _matrix(tables.get("ego_pose", record["ego_pose_token"]))
            bag.ego_pose(stamp, pose)
            if channel == odometry_channel:
                bag.odometry(stamp, pose, *trajectory.twist_at(stamp))
            path = Path(tables.dataroot) / record["filename"]
            if not path.is_file():
                summary.pass_over(f"missing files of {channel}", path.name)
            elif channel in channels:
                _write_image(bag, channels[channel], stamp, path, _calibration(tables, record), summary)
            else:
                _write_sweep(bag, stamp, path, summary)
        ids: dict[str, int] = {}
        for sample in keyframes:
            annotations = _boxes(tables, sample, summary).annotations(sample["timestamp"] * 1000, ids)
            bag.annotations(annotations)
            summary.written["keyframes"] += 1
            summary.written["boxes"] += len(annotations.boxes)
    return summary


def scene_annotations(dataroot: str | Path, scene: str, version: str | None = None) -> list[Annotations]:
    """The labels of a scene straight from the tables, for recordings that lack them (nuscenes2bag); boxes in
    the map frame."""
    tables, summary = open_tables(dataroot, version), ConversionSummary()
    ids: dict[str, int] = {}
    return [
        _boxes(tables, sample, summary).annotations(sample["timestamp"] * 1000, ids)
        for sample in _keyframes(tables, scene)
    ]


def nuscenes2bag_rig(
    dataroot: str | Path, scene: str, version: str | None = None, compressed: bool = False
) -> str:
    """A rig file (YAML) for the nuscenes2bag recording of a scene, with the scene's own intrinsics.

    compressed: the recording was made with nuscenes2bag's compress switch.
    """
    tables = open_tables(dataroot, version)
    records = {
        r["channel"].lower(): r for r in scene_records(tables, scene, tuple(c.upper() for c in _CAMERAS))
    }
    cameras = []
    for name in (n for n in _CAMERAS if n in records):
        calibration = _calibration(tables, records[name])
        k = calibration.intrinsics
        cameras.append({
            "name": name, "image_topic": f"/{name}/{'compressed' if compressed else 'raw'}",
            "compressed": compressed,
            "optical_frame": name,
            "calibration": {"width": calibration.width, "height": calibration.height,
                            "intrinsics": [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])]},
        })  # fmt: skip
    if not cameras:
        raise BagError(f"{scene} has no cameras that nuscenes2bag writes")
    content = {
        "name": f"nuscenes2bag-{scene}", "ego_frame": "base_link", "world_frame": "odom",
        "anchor": cameras[0]["name"],
        "cameras": cameras, "lidar_topics": ["/lidar_top"], "odometry_topic": "/odom",
        "annotations_topic": None,
        "class_names": list(DETECTION_CLASSES),
    }  # fmt: skip
    head = f"# nuscenes2bag recording of {scene}: intrinsics from the tables {tables.version}.\n"
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def _scene(tables: Any, name: str) -> dict[str, Any]:
    for scene in tables.scene:
        if scene["name"] == name:
            return scene
    known = [scene["name"] for scene in tables.scene]
    shown = ", ".join(known[:10]) + (f", … ({len(known)} in all)" if len(known) > 10 else "")
    raise BagError(f"the tables {tables.version} have no scene '{name}'; they have {shown}")


def _keyframes(tables: Any, scene: str) -> list[dict[str, Any]]:
    """The samples of a scene in order of time."""
    token, samples = _scene(tables, scene)["first_sample_token"], []
    while token:
        samples.append(tables.get("sample", token))
        token = samples[-1]["next"]
    return samples


def scene_records(tables: Any, scene: str, channels: tuple[str, ...]) -> list[dict[str, Any]]:
    """All rows of `sample_data` of a scene's sensors, keyframes and sweeps, in order of time."""
    samples = _keyframes(tables, scene)
    records: dict[str, dict[str, Any]] = {}
    for sample in samples:  # every keyframe, so that a chain broken by a missing row doesn't end the sensor
        for channel in channels:
            start = sample["data"].get(channel, "")
            for direction in ("prev", "next"):
                token = start
                while token and (token == start or token not in records):
                    records[token] = record = tables.get("sample_data", token)
                    token = record[direction]
    return sorted(records.values(), key=lambda record: (record["timestamp"], record["channel"]))


def _trajectory(tables: Any, records: list[dict[str, Any]]) -> Trajectory:
    """The ego poses of all records; the first at each stamp."""
    poses: dict[int, np.ndarray] = {}
    for record in records:
        poses.setdefault(
            record["timestamp"] * 1000, _matrix(tables.get("ego_pose", record["ego_pose_token"]))
        )
    return Trajectory(np.array(list(poses), dtype=np.int64), np.array(list(poses.values())))


def _matrix(row: dict[str, Any]) -> np.ndarray:
    """[4, 4] of a table row with translation and rotation (w, x, y, z)."""
    w, x, y, z = row["rotation"]
    return rigid_from_quaternion(np.array(row["translation"]), np.array([x, y, z, w]))


def _calibration(tables: Any, record: dict[str, Any]) -> CameraCalibration:
    intrinsic = tables.get("calibrated_sensor", record["calibrated_sensor_token"])["camera_intrinsic"]
    return CameraCalibration(record["width"], record["height"], np.array(intrinsic))


def _write_image(
    bag: BagWriter,
    camera: str,
    stamp: int,
    path: Path,
    calibration: CameraCalibration,
    summary: ConversionSummary,
) -> None:
    jpeg = path.read_bytes()
    if not jpeg.startswith(b"\xff\xd8"):
        summary.pass_over("images that are not JPEG", path.name)
        return
    bag.camera_info(camera, stamp, calibration)
    bag.image(camera, stamp, jpeg)
    summary.written["images"] += 1


def _write_sweep(bag: BagWriter, stamp: int, path: Path, summary: ConversionSummary) -> None:
    data = np.fromfile(path, dtype=np.float32)
    if len(data) == 0 or len(data) % 5:
        summary.pass_over("sweeps that are cut off", path.name)
        return
    bag.points("/lidar_top/points", stamp, data.reshape(-1, 5)[:, :4], "lidar_top")
    summary.written["sweeps"] += 1


def _boxes(tables: Any, sample: dict[str, Any], summary: ConversionSummary) -> LabelledBoxes:
    """A sample's labels of the ten classes, and its racks."""
    from nuscenes.eval.detection.utils import category_to_detection_name

    rows, names = [], []
    for row in (tables.get("sample_annotation", token) for token in sample["anns"]):
        category = row["category_name"]
        name = _RACK if category == f"static_object.{_RACK}" else category_to_detection_name(category)
        if name is None:
            what = f"boxes of category {category}, which isn't one of the ten classes"
            summary.passed_over[what] += 1
        else:
            rows.append(row)
            names.append(name)
    count = len(rows)
    poses = np.array([_matrix(row) for row in rows]).reshape(count, 4, 4)
    tokens = [row["visibility_token"] for row in rows]
    levels = [tables.get("visibility", token)["level"] if token else "" for token in tokens]
    return LabelledBoxes(
        classes=names,
        instances=[row["instance_token"] for row in rows],
        center=poses[:, :3, 3],
        size=np.array([row["size"] for row in rows], dtype=np.float64).reshape(count, 3)[:, [1, 0, 2]],
        yaw=np.arctan2(poses[:, 1, 0], poses[:, 0, 0]),
        velocity=np.array([tables.box_velocity(row["token"]) for row in rows]).reshape(count, 3),
        num_points=np.array([_points(row) for row in rows], dtype=np.int64),
        visibility=np.array([_VISIBILITY.get(level, np.nan) for level in levels]),
        attributes=[[tables.get("attribute", t)["name"] for t in row["attribute_tokens"]] for row in rows],
        class_names=(*DETECTION_CLASSES, _RACK) if _RACK in names else DETECTION_CLASSES,
    )


def _points(row: dict[str, Any]) -> int:
    """LiDAR returns of a label; -1 where there are a radar's alone. nuScenes scores what has returns of either."""
    return -1 if not row["num_lidar_pts"] and row["num_radar_pts"] else row["num_lidar_pts"]
