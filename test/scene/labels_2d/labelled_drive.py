"""A hand-made recording with two cameras, one of them with a lens that distorts, a moving vehicle and 3D labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.rig import Rig, rig_from_dict

RIG: Rig = rig_from_dict(
    {
        "world_frame": "map",
        "cameras": [
            {
                "name": name,
                "image_topic": f"/{name}/image/compressed",
                "camera_info_topic": f"/{name}/camera_info",
            }
            for name in ("front", "front_left")
        ],
    },
    "labelled drive",
    "labelled",
)
WIDTH, HEIGHT = 320, 180
INTRINSICS = np.array([[250.0, 0, 159.5], [0, 250.0, 89.5], [0, 0, 1]])
CALIBRATIONS = {
    "front": CameraCalibration(WIDTH, HEIGHT, INTRINSICS),
    "front_left": CameraCalibration(
        WIDTH, HEIGHT, INTRINSICS, "plumb_bob", np.array([-0.2, 0.03, 0.001, 0.0, 0.0])
    ),
}
T0 = 1_700_000_000_000_000_000
SPEED = 5.0  # m/s of the vehicle, along x
NAMES = ("car", "pedestrian", "truck")
CENTERS = [[20.0, 0.0, 0.9], [18.0, 6.0, 0.9], [25.0, -3.0, 1.5], [-15.0, 0.0, 0.9]]
SIZES = [[4.4, 1.9, 1.6], [0.7, 0.7, 1.8], [8.0, 2.5, 3.0], [4.4, 1.9, 1.6]]
LABELS = [0, 1, 2, 0]
POINTS = [30, 12, 0, 9]  # the truck is hidden
VELOCITY = [[8.0, 0, 0], [0, 1.5, 0], [0, 0, 0], [0, 0, 0]]


def ego_from_camera(yaw: float) -> np.ndarray:
    c, s = np.cos(yaw), np.sin(yaw)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])
    matrix[:3, 3] = [1.5, 0, 1.5]
    return matrix


MOUNTINGS = {"front": ego_from_camera(0.0), "front_left": ego_from_camera(0.35)}


def world_from_ego(stamp: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = [100.0 + SPEED * (stamp - T0) * 1e-9, 50.0, 0.0]
    return pose


def annotations(stamp: int) -> Annotations:
    """The objects, each going straight on, in the world frame."""
    count, elapsed = len(LABELS), (stamp - T0) * 1e-9
    center = torch.tensor(CENTERS, dtype=torch.float64) + torch.tensor([100.0, 50.0, 0.0])
    velocity = torch.tensor(VELOCITY)
    boxes = Boxes3D(
        center + velocity.double() * elapsed, torch.tensor(SIZES), torch.tensor([0.3, 0.0, -0.2, 0.0]), velocity,
        torch.tensor(LABELS), torch.ones(count), torch.arange(count),
    )  # fmt: skip
    names = tuple(f"object-{i}" for i in range(count))
    return Annotations(stamp, boxes, NAMES, names, torch.tensor(POINTS), torch.full((count,), torch.nan))


def image_stamps(frames: int = 3) -> dict[str, list[int]]:
    """front is exposed at the keyframes, front_left 30 ms later."""
    return {
        "front": [T0 + k * 100_000_000 for k in range(frames)],
        "front_left": [T0 + k * 100_000_000 + 30_000_000 for k in range(frames)],
    }


def write_drive(path: Path, frames: int = 3, labelled: bool = True) -> Path:
    random = np.random.default_rng(0)
    with BagWriter(path, RIG) as bag:
        bag.static_transforms(T0, {RIG.camera(name).frame: matrix for name, matrix in MOUNTINGS.items()})
        for stamp in range(T0 - 100_000_000, T0 + (frames + 1) * 100_000_000, 20_000_000):
            bag.ego_pose(stamp, world_from_ego(stamp))
        for camera, stamps in image_stamps(frames).items():
            for stamp in stamps:
                bag.camera_info(camera, stamp, CALIBRATIONS[camera])
                pixels = random.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
                bag.image(camera, stamp, simplejpeg.encode_jpeg(pixels))
        for k in range(frames if labelled else 0):
            bag.annotations(annotations(T0 + k * 100_000_000))
    return path
