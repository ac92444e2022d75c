"""A small drive for tests of ROS processes: random textures, a rig of any size, tf; no renderer needed."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import yaml
from scipy.spatial.transform import Rotation

from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.rig import Rig, rig_from_dict

START_NS = 1_700_000_000_000_000_000
OPTICAL = np.array(
    [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
)  # body (x forward) from optical axes


def rig_dict(cameras: int = 6, **extra: object) -> dict:
    """A rig file's content; cameras look around the vehicle."""
    names = [f"cam{i}" for i in range(cameras)]
    content = {
        "name": f"test{cameras}", "world_frame": "odom",
        "cameras": [
            {"name": n, "image_topic": f"/{n}/image/compressed", "camera_info_topic": f"/{n}/camera_info",
             "optical_frame": f"{n}_optical_frame"} for n in names
        ],
    }  # fmt: skip
    return {**content, **extra}


def write_rig(path: Path, content: dict) -> Rig:
    """Write a rig file; returns the rig."""
    path.write_text(yaml.safe_dump(content))
    return rig_from_dict(content, str(path))


@dataclass(frozen=True)
class Drive:
    """Deterministic images, calibrations and poses of a rig. size: (height, width) px."""

    rig: Rig
    size: tuple[int, int] = (180, 320)
    rate: float = 10.0

    def mounting(self, index: int) -> np.ndarray:
        """ego_from_camera [4, 4]."""
        matrix = np.eye(4)
        yaw = 2 * np.pi * index / len(self.rig.cameras)
        matrix[:3, :3] = Rotation.from_euler("z", yaw).as_matrix() @ OPTICAL
        matrix[:3, 3] = [np.cos(yaw), np.sin(yaw), 1.5]
        return matrix

    def pose(self, stamp_ns: int) -> np.ndarray:
        """odom_from_base [4, 4]: 5 m/s along a curve."""
        t = (stamp_ns - START_NS) / 1e9
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("z", 0.1 * t).as_matrix()
        matrix[:3, 3] = [50 * np.sin(0.1 * t), 50 * (1 - np.cos(0.1 * t)), 0.0]
        return matrix

    def calibration(self, index: int) -> CameraCalibration:
        """A pinhole camera of 70 degrees."""
        height, width = self.size
        focal = width / 2 / np.tan(np.radians(35))
        matrix = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
        return CameraCalibration(width, height, matrix)

    def stamp(self, frame: int, index: int) -> int:
        """Cameras fire one after the other, 4 ms apart."""
        return START_NS + round(frame / self.rate * 1e9) + index * 4_000_000

    def jpeg(self, frame: int, index: int) -> bytes:
        """A texture that drifts."""
        return _jpeg(self.size, frame % 20, index)

    def write(self, path: Path, frames: int) -> Path:
        """The whole drive as a recording: static tf first, tf at every image's stamp and at 20 Hz."""
        with BagWriter(path, self.rig, overwrite=True) as bag:
            bag.static_transforms(START_NS - 60_000_000, self.mountings())
            bag.ego_pose(START_NS - 50_000_000, self.pose(START_NS - 50_000_000))
            for frame in range(frames):
                for index, camera in enumerate(self.rig.cameras):
                    stamp = self.stamp(frame, index)
                    bag.ego_pose(stamp, self.pose(stamp))
                    bag.camera_info(camera.name, stamp, self.calibration(index))
                    bag.image(camera.name, stamp, self.jpeg(frame, index))
                between = self.stamp(frame, 0) + round(0.5e9 / self.rate)
                bag.ego_pose(between, self.pose(between))
        return path

    def mountings(self) -> dict[str, np.ndarray]:
        """Optical frame -> ego_from_camera."""
        return {camera.frame: self.mounting(index) for index, camera in enumerate(self.rig.cameras)}


@functools.cache
def _jpeg(size: tuple[int, int], frame: int, index: int) -> bytes:
    generator = np.random.default_rng(index)
    coarse = generator.integers(0, 256, (12, 40, 3), np.uint8)
    picture = cv2.resize(np.roll(coarse, frame, axis=1), size[::-1], interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 85)
