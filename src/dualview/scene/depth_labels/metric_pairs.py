"""What fixes the scale and shift of relative depth: (q, z) pairs from LiDAR, from a detector's boxes, or from the road."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dualview.errors import BagError, ConfigError, TransformError
from dualview.geometry.box_projection import ProjectedBoxes, intersection_area, rectangle_area, surface_depth
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.camera_models import distort_rays
from dualview.geometry.rigid import invert_rigid
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.depth_labels.depth_map import DepthMap
from dualview.scene.depth_labels.metric import InverseFit, fit_images
from dualview.scene.depth_labels.store import DepthStore
from dualview.scene.labels_2d.from_3d import recorded_rectangles
from dualview.scene.labels_2d.recorded_images import (
    ImageStamp,
    camera_calibrations,
    image_stamps,
    world_from_camera,
)
from dualview.scene.recorded import LidarSweeps, read_transforms
from dualview.scene.rig import Rig

OPTIONS = ("lidar", "boxes", "ground")
_MAX_POINTS = 2000  # of an image
_WITHIN_NS = 80_000_000


@dataclass(frozen=True)
class BoxesAt:
    """Confident boxes of a detector (world frame, centre float64) at an instant."""

    stamp_ns: int
    boxes: Boxes3D


Pairs = tuple[np.ndarray, np.ndarray]


def fit_recording(
    bag: BagReader,
    rig: Rig,
    store: DepthStore,
    option: str,
    detections: Sequence[BoxesAt] = (),
    ground_height: float = 0.0,
) -> tuple[dict[str, dict[int, InverseFit]], Counter[str]]:
    """Fits of all stored maps by one of OPTIONS, and what happened: "fitted", "fitted with neighbours", reasons -> images.

    detections: for "boxes", those that shall count (score above 0.5). ground_height: for "ground", m of the road in the ego frame.
    Raises ConfigError for another option, BagError if the recording lacks what the option needs.
    """
    if option not in OPTIONS:
        raise ConfigError(f"there is no way '{option}' to metres; choose one of {', '.join(OPTIONS)}")
    if option == "lidar" and not any(topic in bag.topics for topic in rig.lidar_topics):
        raise BagError(f"{bag.path} has no LiDAR: choose --metric boxes or ground")
    transforms, calibrations = read_transforms(bag), camera_calibrations(bag, rig)
    told: Counter[str] = Counter()
    fits: dict[str, dict[int, InverseFit]] = {}
    stamps = image_stamps(bag, rig)
    for camera in rig.cameras:
        calibration = calibrations.get(camera.name)
        sweeps = LidarSweeps(bag, rig, transforms) if option == "lidar" else None
        samples: dict[int, Pairs] = {}
        for image in stamps[camera.name]:
            depth = store.read(camera.name, image.stamp_ns)
            if depth is None or depth.kind == "metric":
                continue
            if calibration is None:
                told["without calibration"] += 1
                continue
            try:
                pose = world_from_camera(transforms, rig, camera, image)
                ego = transforms.lookup(rig.world_frame, rig.ego_frame, image.stamp_ns)
            except TransformError:
                told["without pose"] += 1
                continue
            if sweeps is not None:
                near = sweeps.near(image.stamp_ns)
                points = [sweep.points[:, :3].astype(np.float64) + sweep.origin for sweep in near]
                samples[image.stamp_ns] = lidar_pairs(
                    depth, np.concatenate(points) if points else np.zeros((0, 3)), pose, calibration
                )
            elif option == "boxes":
                samples[image.stamp_ns] = box_pairs(
                    depth, _nearest(detections, image), image, pose, calibration
                )
            else:
                samples[image.stamp_ns] = ground_pairs(
                    depth, np.linalg.inv(ego) @ pose, calibration, ground_height
                )
        fits[camera.name] = fit_images(samples, 4 if option == "boxes" else 30)
        for stamp in samples:
            fit = fits[camera.name].get(stamp)
            told["not fitted" if fit is None else "fitted with neighbours" if fit.window else "fitted"] += 1
    return fits, told


def lidar_pairs(
    depth: DepthMap, points: np.ndarray, world_from_camera: np.ndarray, calibration: CameraCalibration
) -> Pairs:
    """Option A: points [P, 3] (m, world frame) at the pixels where they appear."""
    camera_from_world = np.linalg.inv(world_from_camera)
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    local = local[local[:, 2] > 1.0]
    if len(local) > 20 * _MAX_POINTS:
        local = local[:: len(local) // (20 * _MAX_POINTS)]
    rays = local[:, :2] / local[:, 2:]
    rays = rays[(np.abs(rays) < 3.0).all(1)] if len(rays) else rays  # past 70 degrees nothing is in an image
    local = local[(np.abs(local[:, :2]) < 3.0 * local[:, 2:]).all(1)]
    return _at_rays(depth, rays, local[:, 2], calibration)


def ground_pairs(
    depth: DepthMap, ego_from_camera: np.ndarray, calibration: CameraCalibration, ground_height: float = 0.0
) -> Pairs:
    """Option C: pixels of the middle of the image that look at the road 4 to 40 m ahead, as if it were flat and nothing stood on it; what
    does stand there is for the fit to leave out."""
    matrix = calibration.pinhole_intrinsics
    u = np.linspace(0.2, 0.8, 60) * calibration.width - 0.5
    v = np.linspace(0.3, 0.98, 80) * calibration.height - 0.5
    pixels = np.stack([grid.ravel() for grid in np.meshgrid(u, v)], -1)
    rays = (pixels - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
    directions = np.concatenate([rays, np.ones((len(rays), 1))], 1) @ ego_from_camera[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (ground_height - ego_from_camera[2, 3]) / directions[:, 2]
    seen = (directions[:, 2] < -1e-6) & (z > 4.0) & (z < 40.0)
    return _at_rays(depth, rays[seen], z[seen], calibration)


def box_pairs(
    depth: DepthMap,
    detected: BoxesAt | None,
    image: ImageStamp,
    world_from_camera: np.ndarray,
    calibration: CameraCalibration,
) -> Pairs:
    """Option B: surface depth of a detector's boxes and the median of q in their rectangles; boxes are moved to the image's exposure.

    The map shows an object's surface, which is the depth that counts (see `surface_depth`). Boxes whose middle a nearer box may hide are
    left out.
    """
    if detected is None or len(detected.boxes) == 0:
        return np.zeros(0), np.zeros(0)
    boxes = detected.boxes
    elapsed = (image.stamp_ns - detected.stamp_ns) * 1e-9
    boxes = replace(boxes, center=boxes.center.double() + boxes.velocity.nan_to_num(0.0).double() * elapsed)
    projected = recorded_rectangles(boxes, torch.from_numpy(world_from_camera), calibration)
    q = depth.box_values(projected.rectangles.numpy(), (calibration.height, calibration.width))
    values = torch.cat([boxes.center.double(), boxes.size.double(), boxes.yaw.double()[:, None]], 1)
    surface = surface_depth(values, invert_rigid(torch.from_numpy(world_from_camera)))
    kept = projected.valid.numpy() & np.isfinite(q) & ~_hidden(projected)
    return q[kept], surface.numpy()[kept]


def _hidden(projected: ProjectedBoxes) -> np.ndarray:
    """bool [M]: the central half of a rectangle lies to more than a third in one of a nearer box."""
    low, high = projected.rectangles[:, :2], projected.rectangles[:, 2:]
    middle = torch.cat([low * 0.75 + high * 0.25, low * 0.25 + high * 0.75], 1)
    covered = (
        intersection_area(middle[:, None], projected.rectangles) > 0.33 * rectangle_area(middle)[:, None]
    )
    nearer = (projected.depth < projected.depth[:, None]) & projected.valid
    return (covered & nearer).any(1).numpy()


def _at_rays(depth: DepthMap, rays: np.ndarray, z: np.ndarray, calibration: CameraCalibration) -> Pairs:
    """(q, z) at the pixels of the map that show rays [P, 2] (x/z, y/z), at most two thousand of them."""
    if len(rays) == 0:
        return np.zeros(0), np.zeros(0)
    shown = distort_rays(rays, calibration.distortion_model, calibration.distortion)
    matrix = calibration.intrinsics
    pixels = shown @ matrix[:2, :2].T + matrix[:2, 2] + 0.5
    height, width = depth.values.shape
    column = np.floor(pixels[:, 0] * width / calibration.width).astype(np.int64)
    row = np.floor(pixels[:, 1] * height / calibration.height).astype(np.int64)
    inside = np.flatnonzero((column >= 0) & (row >= 0) & (column < width) & (row < height))
    if len(inside) > _MAX_POINTS:
        inside = inside[np.linspace(0, len(inside) - 1, _MAX_POINTS).astype(int)]
    q = depth.values[row[inside], column[inside]]
    known = np.isfinite(q)
    return q[known], z[inside][known]


def _nearest(detections: Sequence[BoxesAt], image: ImageStamp) -> BoxesAt | None:
    best = min(detections, key=lambda d: abs(d.stamp_ns - image.stamp_ns), default=None)
    return best if best is not None and abs(best.stamp_ns - image.stamp_ns) <= _WITHIN_NS else None
