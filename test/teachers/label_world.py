"""A short recorded drive with two cameras, a LiDAR and two objects, and a teacher of random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
import torch
from safetensors.torch import save_file

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D
from dualview.networks.torchvision_shim import import_timm
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.rig import Rig, rig_from_dict

START = 1_700_000_000_000_000_000
GRID = BevGrid(-16.0, -16.0, 1.0, 32, 32)
RIG: Rig = rig_from_dict(
    {
        "name": "label-world",
        "world_frame": "map",
        "cameras": [
            {"name": n, "image_topic": f"/{n}/image/compressed", "camera_info_topic": f"/{n}/camera_info"}
            for n in ("front", "back")
        ],
        "lidar_topics": ["/lidar/points"],
        "annotations_topic": "/annotations",
        "class_names": ["car", "pedestrian"],
    },
    "label_world",
)
RIG_YAML = """
name: label-world
world_frame: map
cameras:
  - {name: front, image_topic: /front/image/compressed, camera_info_topic: /front/camera_info}
  - {name: back, image_topic: /back/image/compressed, camera_info_topic: /back/camera_info}
lidar_topics: [/lidar/points]
annotations_topic: /annotations
class_names: [car, pedestrian]
"""
_OPTICAL = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def ego_pose(seconds: float) -> np.ndarray:
    """Straight on at 5 m/s."""
    pose = np.eye(4)
    pose[:3, 3] = [100 + 5 * seconds, 50, 0]
    return pose


def labels_at(seconds: float) -> Annotations:
    """A parked car and one that drives ahead at 8 m/s."""
    boxes = Boxes3D(
        torch.tensor([[112.0, 54.0, 0.8], [108.0 + 8 * seconds, 50.0, 0.8]], dtype=torch.float64),
        torch.tensor([[4.0, 2.0, 1.6]]).repeat(2, 1), torch.zeros(2), torch.tensor([[0.0, 0, 0], [8.0, 0, 0]]),
        torch.zeros(2, dtype=torch.int64), torch.ones(2), torch.arange(2),
    )  # fmt: skip
    stamp = START + round(seconds * 1e9)
    return Annotations(
        stamp, boxes, ("car", "pedestrian"), ("parked", "moving"), torch.tensor([9, 9]), torch.ones(2)
    )


def write_recording(
    path: Path, seconds: float = 1.0, labels: bool = True, lidar: bool = True, seed: int = 0, lidar_frame: str = "lidar",
    broken: tuple[str, ...] = (),
) -> Path:  # fmt: skip
    """Images and sweeps at 10 Hz. broken: cameras whose images can't be decoded."""
    random = np.random.default_rng(seed)
    calibration = CameraCalibration(
        height=60, width=96, intrinsics=np.array([[50.0, 0, 47.5], [0, 50, 29.5], [0, 0, 1]]),
        distortion_model="", distortion=np.zeros(0),
    )  # fmt: skip
    road = np.c_[random.uniform(90, 125, 400), random.uniform(40, 60, 400), np.zeros(400)]
    body = random.uniform(-0.5, 0.5, (60, 3)) * [4.0, 2.0, 1.6]
    picture = random.integers(0, 255, (60, 96, 3), dtype=np.uint8)
    with BagWriter(path, RIG) as bag:
        mountings = {"front": _OPTICAL.copy(), "back": np.diag([-1.0, -1, 1, 1]) @ _OPTICAL}
        above = np.eye(4)
        above[2, 3] = 1.8
        frames = {RIG.camera(n).frame: m + above - np.eye(4) for n, m in mountings.items()}
        bag.static_transforms(START, {**frames, "lidar": above})
        for index in range(round(seconds * 10)):
            now = index / 10
            stamp, pose = START + round(now * 1e9), ego_pose(now)
            bag.ego_pose(stamp, pose)
            if lidar:
                world = np.concatenate([road, *(body + c for c in labels_at(now).boxes.center.numpy())])
                points = world - pose[:3, 3] - [0, 0, 1.8]
                bag.points(
                    "/lidar/points", stamp, np.c_[points, np.ones(len(points))].astype(np.float32), lidar_frame
                )
            for name in ("front", "back"):
                bag.camera_info(name, stamp, calibration)
                jpeg = simplejpeg.encode_jpeg(np.roll(picture, index, 1), 90, "RGB")
                bag.image(name, stamp, jpeg[:40] if name in broken else jpeg)
            if labels:
                bag.annotations(labels_at(now))
    return path


def write_teacher(path: Path) -> Path:
    """Random weights of timm's smallest Vision Transformer."""
    torch.manual_seed(0)
    save_file(import_timm().create_model("test_vit", pretrained=False).state_dict(), path)
    return path
