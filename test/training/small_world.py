"""A small recorded world: two cameras, boxes that move, a LiDAR; and a recipe small enough to train in
seconds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import simplejpeg
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.bag_writer import BagWriter
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.rig import Rig

CLASSES = ("car", "pedestrian")
SIZE = (64, 96)  # height, width, px
START_NS = 1_700_000_000_000_000_000
RIG = """
name: small
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
    """A vehicle on a wide left turn at about 5 m/s."""
    yaw = 0.1 * seconds
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    pose[:3, 3] = [100 + 50 * np.sin(yaw), 50 * (1 - np.cos(yaw)), 0]
    return pose


def mounting(name: str) -> np.ndarray:
    turned = np.diag([-1.0, -1, 1, 1]) if name == "back" else np.eye(4)
    mount = turned @ _OPTICAL
    mount[:3, 3] = [1.0 if name == "front" else -1.0, 0, 1.5]
    return mount


def objects(random: np.random.Generator) -> dict[str, np.ndarray]:
    """Six objects: place (world, at the start), size, yaw, velocity, class."""
    count = 6
    heading = random.uniform(-np.pi, np.pi, count)
    speed = random.uniform(0, 4, count)
    pedestrian = np.arange(count) % 2 == 1
    return {
        "place": np.c_[
            100 + random.uniform(-20, 25, count), random.uniform(-10, 12, count), np.full(count, 0.9)
        ],
        "size": np.where(pedestrian[:, None], [0.7, 0.7, 1.8], [4.2, 1.9, 1.8]),
        "yaw": heading,
        "velocity": np.c_[speed * np.cos(heading), speed * np.sin(heading), np.zeros(count)],
        "label": pedestrian.astype(int),
    }


def write_drive(
    path: Path, rig: Rig, seed: int, frames: int = 24, rate: float = 10.0, keyframe_every: int = 2
) -> Path:
    """A drive of `frames` images at `rate`, annotated every `keyframe_every` frames, as a recording."""
    random = np.random.default_rng(seed)
    things = objects(random)
    calibration = CameraCalibration(
        height=SIZE[0], width=SIZE[1], intrinsics=np.array([[50.0, 0, 47.5], [0, 50, 31.5], [0, 0, 1]]),
        distortion_model="", distortion=np.zeros(0),
    )  # fmt: skip
    with BagWriter(path, rig) as bag:
        frames_of = {rig.camera(name).frame: mounting(name) for name in ("front", "back")}
        lidar = np.eye(4)
        lidar[2, 3] = 1.8
        bag.static_transforms(START_NS, {**frames_of, "lidar": lidar})
        for index in range(frames):
            seconds = index / rate
            stamp = START_NS + round(seconds * 1e9)
            pose = ego_pose(seconds)
            bag.ego_pose(stamp, pose)
            center = things["place"] + things["velocity"] * seconds
            corners = boxes_at(things, center).corners().numpy()
            points = surface_points(random, things, center)
            in_lidar = (points - pose[:3, 3] - pose[:3, :3] @ [0, 0, 1.8]) @ pose[:3, :3]
            bag.points(
                "/lidar/points", stamp, np.c_[in_lidar, np.ones(len(points))].astype(np.float32), "lidar"
            )
            for name in ("front", "back"):
                bag.camera_info(name, stamp, calibration)
                bag.image(
                    name,
                    stamp,
                    picture(pose @ mounting(name), calibration.intrinsics, corners, things["label"]),
                )
            if index % keyframe_every == 0:
                bag.annotations(annotations_at(things, center, stamp))
    return path


def boxes_at(things: dict[str, np.ndarray], center: np.ndarray) -> Boxes3D:
    count = len(center)
    return Boxes3D(
        torch.from_numpy(center), torch.from_numpy(things["size"]).float(), torch.from_numpy(things["yaw"]).float(),
        torch.from_numpy(things["velocity"]).float(), torch.from_numpy(things["label"]), torch.ones(count),
        torch.arange(count),
    )  # fmt: skip


def annotations_at(things: dict[str, np.ndarray], center: np.ndarray, stamp: int) -> Annotations:
    count = len(center)
    return Annotations(
        stamp, boxes_at(things, center), CLASSES, tuple(f"object{i}" for i in range(count)),
        torch.tensor([30] * (count - 1) + [0]), torch.ones(count),
    )  # fmt: skip


def surface_points(
    random: np.random.Generator, things: dict[str, np.ndarray], center: np.ndarray
) -> np.ndarray:
    """World points on the boxes' tops, where nothing hides them."""
    parts = []
    for place, size, yaw in zip(center, things["size"], things["yaw"], strict=True):
        local = random.uniform(-0.5, 0.5, (40, 3)) * size
        local[:, 2] = size[2] / 2
        cos, sin = np.cos(yaw), np.sin(yaw)
        parts.append(local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + place)
    return np.concatenate(parts)


def picture(
    world_from_camera: np.ndarray, intrinsics: np.ndarray, corners: np.ndarray, labels: np.ndarray
) -> bytes:
    """Grey, with every box in front of the camera as a rectangle in its class's colour."""
    image = np.full((*SIZE, 3), 90, np.uint8)
    camera_from_world = np.linalg.inv(world_from_camera)
    for box, label in zip(corners, labels, strict=True):
        seen = box @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        if (seen[:, 2] > 0.5).all():
            pixel = seen @ intrinsics.T
            pixel = pixel[:, :2] / pixel[:, 2:]
            (left, top), (right, bottom) = (
                np.clip(pixel.min(0), 0, 200).astype(int),
                pixel.max(0).clip(0, 200).astype(int),
            )
            image[top : bottom + 1, left : right + 1] = (220, 40, 40) if label == 0 else (40, 60, 230)
    return simplejpeg.encode_jpeg(image, 95, "RGB")
