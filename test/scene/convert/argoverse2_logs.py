"""A small log in the exact layout of Argoverse 2's sensor data set, and its geometry by plain matrices.

Seven ring cameras at 20 Hz with stamps of their own, two LiDARs at 10 Hz, a vehicle that drives a curve far from the city's origin, and
objects that are seen again under the same uuid.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow
from pyarrow import feather

START = 315_966_265_259_836_000  # stamps as Argoverse's: ns of 1980
SWEEP_PERIOD, IMAGE_PERIOD = 100_000_000, 50_000_000
UPRIGHT, LANDSCAPE = (2048, 1550), (1550, 2048)  # (height, width)
CAMERAS = {  # degrees to the left
    "ring_front_center": 0.0, "ring_front_right": -45.0, "ring_front_left": 45.0, "ring_side_right": -99.0,
    "ring_side_left": 99.0, "ring_rear_right": -153.0, "ring_rear_left": 153.0,
}  # fmt: skip
SWEEPS = 3
IMAGES = 5


def quaternion(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> tuple[float, float, float, float]:
    """(w, x, y, z) of a turn by roll, then pitch, then yaw (rad)."""
    (cr, sr), (cp, sp), (cy, sy) = ((np.cos(a / 2), np.sin(a / 2)) for a in (roll, pitch, yaw))
    return (
        cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy,
    )  # fmt: skip


def matrix(wxyz: tuple[float, float, float, float], translation: tuple[float, ...]) -> np.ndarray:
    """[4, 4] by the textbook's formula."""
    w, x, y, z = wxyz
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = translation
    return result


@dataclass(frozen=True)
class Thing:
    """An object in the city: its uuid, category, centre at START (m), heading (rad), velocity (m/s) and size (m)."""

    uuid: str
    category: str
    center: tuple[float, float, float]
    yaw: float
    velocity: tuple[float, float] = (0.0, 0.0)
    size: tuple[float, float, float] = (4.6, 1.9, 1.7)


def ahead(distance: float, left: float, height: float = 0.8) -> tuple[float, float, float]:
    """A place in the city, given from the vehicle at START."""
    cos, sin = np.cos(0.7), np.sin(0.7)
    return (5000.0 + distance * cos - left * sin, -2000.0 + distance * sin + left * cos, 20.0 + height)


THINGS = (
    Thing("11111111-aaaa", "REGULAR_VEHICLE", ahead(20, 1), 0.9, (6.0, 5.0)),
    Thing("22222222-bbbb", "BUS", ahead(-15, -8, 1.5), -2.0, size=(12.0, 2.9, 3.2)),
    Thing("33333333-cccc", "PEDESTRIAN", ahead(9, 9), 2.5, (-1.0, 0.5), (0.6, 0.7, 1.75)),
    Thing("44444444-dddd", "REGULAR_VEHICLE", ahead(120, -30), 0.1),
    Thing("55555555-eeee", "BOLLARD", ahead(4, -6, 0.2), 0.0, size=(0.3, 0.3, 1.0)),
    Thing("66666666-ffff", "ANIMAL", ahead(30, 12, 0.0), 0.0, size=(0.8, 0.3, 0.5)),
)


@dataclass
class Log:
    """What is written, and how things lie."""

    folder: Path
    tilt: float = 0.0  # rad, of the vehicle
    things: tuple[Thing, ...] = THINGS
    jpegs: dict[str, bytes] = field(default_factory=dict)

    def city_from_ego(self, stamp: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(quaternion w first, translation) of the vehicle: 10 m/s, turning by 0.3 rad/s."""
        t = (stamp - START) / 1e9
        yaw = 0.7 + 0.3 * t
        place = (
            5000.0 + (np.sin(yaw) - np.sin(0.7)) * 10 / 0.3,
            -2000.0 - (np.cos(yaw) - np.cos(0.7)) * 10 / 0.3,
            20.0,
        )
        return quaternion(yaw, self.tilt, -self.tilt / 2), place

    def pose(self, stamp: int) -> np.ndarray:
        return matrix(*self.city_from_ego(stamp))

    def ego_from_camera(self, camera: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Optical frame: z along the view, a little tilted."""
        yaw = np.radians(CAMERAS[camera])
        w, x, y, z = quaternion(yaw, 0.02)
        # times the turn from (x forward, y left, z up) to (x right, y down, z forward), (0.5, -0.5, 0.5, -0.5)
        a = 0.5
        product = (
            w * a + x * a - y * a + z * a, -w * a + x * a - y * a - z * a,
            w * a + x * a + y * a - z * a, -w * a + x * a + y * a + z * a,
        )  # fmt: skip
        return product, (1.4 + 0.3 * np.cos(yaw), 0.3 * np.sin(yaw), 1.38)

    def intrinsics(self, camera: str) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy."""
        return (
            (1683.0, 1683.0, 770.2, 1022.8) if size_of(camera) == UPRIGHT else (1684.5, 1684.5, 1019.1, 780.6)
        )

    def image_stamps(self, camera: str) -> list[int]:
        offset = 3_000_000 * list(CAMERAS).index(camera) + 1_234
        return [START + offset + IMAGE_PERIOD * i for i in range(IMAGES)]

    @property
    def sweep_stamps(self) -> list[int]:
        return [START + 7 + SWEEP_PERIOD * i for i in range(SWEEPS)]

    def city_from_box(self, thing: Thing, stamp: int) -> np.ndarray:
        """Where a thing is: upright for the vehicle, as Argoverse labels, whose tilt it shares."""
        pose = self.pose(stamp)
        t = (stamp - START) / 1e9
        x, y, z = thing.center
        place = (x + thing.velocity[0] * t, y + thing.velocity[1] * t, z)
        ego = np.linalg.inv(pose) @ (*place, 1.0)
        heading = pose[:3, :3].T @ (np.cos(thing.yaw), np.sin(thing.yaw), 0.0)
        return pose @ matrix(quaternion(float(np.arctan2(heading[1], heading[0]))), tuple(ego[:3]))

    def corners(self, thing: Thing, stamp: int) -> np.ndarray:
        """[8, 3] m in the city, in the order of signs (-, -, -), (-, -, +) … (+, +, +) along the box's axes."""
        signs = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        box = self.city_from_box(thing, stamp)
        return signs * np.array(thing.size) / 2 @ box[:3, :3].T + box[:3, 3]

    def project(self, camera: str, stamp: int, city: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [P, 2] and depths [P] of city points [P, 3] in the image taken at `stamp`."""
        camera_from_city = np.linalg.inv(self.pose(stamp) @ matrix(*self.ego_from_camera(camera)))
        points = city @ camera_from_city[:3, :3].T + camera_from_city[:3, 3]
        fx, fy, cx, cy = self.intrinsics(camera)
        depth = points[:, 2]
        return np.stack([fx * points[:, 0] / depth + cx, fy * points[:, 1] / depth + cy], 1), depth

    def points(self, stamp: int) -> np.ndarray:
        """[P, 3] float16 of the ego frame: a cloud around, and some inside every box."""
        random = np.random.default_rng(stamp % 1000)
        ego_from_city = np.linalg.inv(self.pose(stamp))
        parts = [random.uniform((-40, -40, -0.4), (40, 40, 3), (200, 3))]
        for thing in self.things:
            box = ego_from_city @ self.city_from_box(thing, stamp)
            parts.append(random.uniform(-0.3, 0.3, (12, 3)) * thing.size @ box[:3, :3].T + box[:3, 3])
        return np.concatenate(parts).astype(np.float16)

    def interior(self, thing: Thing, stamp: int) -> int:
        """How many points lie in the thing's box."""
        box = np.linalg.inv(np.linalg.inv(self.pose(stamp)) @ self.city_from_box(thing, stamp))
        inside = self.points(stamp).astype(np.float64) @ box[:3, :3].T + box[:3, 3]
        return int((np.abs(inside) <= np.array(thing.size) / 2).all(1).sum())


def size_of(camera: str) -> tuple[int, int]:
    """(height, width)."""
    return UPRIGHT if camera == "ring_front_center" else LANDSCAPE


def write_log(folder: Path, tilt: float = 0.0) -> Log:
    """Write the log's files."""
    log = Log(folder, tilt)
    write_calibration(log)
    stamps = sorted({*log.sweep_stamps, *(s for c in CAMERAS for s in log.image_stamps(c))})
    poses = [log.city_from_ego(stamp) for stamp in stamps]
    write_table(folder / "city_SE3_egovehicle.feather", {"timestamp_ns": stamps, **_pose_columns(poses)})
    for camera in CAMERAS:
        at = folder / "sensors" / "cameras" / camera
        at.mkdir(parents=True)
        for stamp in log.image_stamps(camera):
            log.jpegs[f"{camera}/{stamp}"] = data = picture(log, camera, stamp)
            (at / f"{stamp}.jpg").write_bytes(data)
    at = folder / "sensors" / "lidar"
    at.mkdir()
    for stamp in log.sweep_stamps:
        xyz = log.points(stamp)
        count = len(xyz)
        write_table(at / f"{stamp}.feather", {
            "x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2], "intensity": np.arange(count, dtype=np.uint8),
            "laser_number": (np.arange(count) % 64).astype(np.uint8), "offset_ns": np.arange(count, dtype=np.int32),
        })  # fmt: skip
    write_annotations(log)
    return log


def write_calibration(log: Log) -> None:
    """intrinsics.feather, with the lens' coefficients that the images don't need, and egovehicle_SE3_sensor.feather."""
    at = log.folder / "calibration"
    at.mkdir(parents=True)
    fx, fy, cx, cy = zip(*(log.intrinsics(c) for c in CAMERAS), strict=True)
    heights, widths = zip(*(size_of(c) for c in CAMERAS), strict=True)
    ones = [1.0] * len(CAMERAS)
    write_table(at / "intrinsics.feather", {
        "sensor_name": list(CAMERAS), "fx_px": fx, "fy_px": fy, "cx_px": cx, "cy_px": cy,
        "k1": [-0.25 * o for o in ones], "k2": [-0.1 * o for o in ones], "k3": [0.2 * o for o in ones],
        "height_px": heights, "width_px": widths,
    })  # fmt: skip
    mountings = [log.ego_from_camera(c) for c in CAMERAS]
    mountings += [
        (quaternion(0.01, 0.0, 0.005), (1.35, 0.0, 1.64)),
        (quaternion(3.1, 0.01, 3.13), (1.35, 0.0, 1.5)),
    ]
    names = [*CAMERAS, "up_lidar", "down_lidar"]
    write_table(at / "egovehicle_SE3_sensor.feather", {"sensor_name": names, **_pose_columns(mountings)})


def annotation_columns(log: Log) -> dict[str, list]:
    """The rows of annotations.feather, boxes in the ego frame at the sweep's stamp."""
    rows = [(stamp, thing) for stamp in log.sweep_stamps for thing in log.things]
    poses = []
    for stamp, thing in rows:
        box = np.linalg.inv(log.pose(stamp)) @ log.city_from_box(thing, stamp)
        poses.append((quaternion(float(np.arctan2(box[1, 0], box[0, 0]))), tuple(box[:3, 3])))
    return {
        "timestamp_ns": [stamp for stamp, _ in rows],
        "track_uuid": [thing.uuid for _, thing in rows],
        "category": [thing.category for _, thing in rows],
        **{
            f"{name}_m": [thing.size[i] for _, thing in rows]
            for i, name in enumerate(("length", "width", "height"))
        },
        **_pose_columns(poses),
        "num_interior_pts": [log.interior(thing, stamp) for stamp, thing in rows],
    }


def write_annotations(log: Log, columns: dict[str, list] | None = None) -> None:
    write_table(log.folder / "annotations.feather", columns or annotation_columns(log))


def write_table(path: Path, columns: dict) -> None:
    """A feather file as Argoverse's are: version 2, compressed."""
    feather.write_feather(pyarrow.table(columns), path, compression="zstd")


def copy_log(source: Log, folder: Path) -> Log:
    """The same log elsewhere, to be damaged."""
    shutil.copytree(source.folder, folder)
    return Log(folder, source.tilt, source.things, source.jpegs)


def picture(log: Log, camera: str, stamp: int) -> bytes:
    """Grey, with a white disc of 12 px where the first thing's centre is at that moment."""
    image = np.full((*size_of(camera), 3), 90, np.uint8)
    pixels, depth = log.project(camera, stamp, log.city_from_box(log.things[0], stamp)[None, :3, 3])
    if depth[0] > 0 and np.abs(pixels).max() < 5000:
        cv2.circle(image, tuple(round(float(v)) for v in pixels[0]), 12, (255, 255, 255), -1)
    return cv2.imencode(".jpg", image)[1].tobytes()


def _pose_columns(poses: list) -> dict[str, list[float]]:
    rotations, translations = zip(*poses, strict=True)
    columns = {name: [float(q[i]) for q in rotations] for i, name in enumerate(("qw", "qx", "qy", "qz"))}
    return columns | {
        name: [float(t[i]) for t in translations] for i, name in enumerate(("tx_m", "ty_m", "tz_m"))
    }
