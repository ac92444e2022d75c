"""2D labels from 3D ones: the boxes' rectangles in the images, kept where an annotator would have drawn one ("2D supervised fine-tuning"
simulates its 2D labels; the rule is `VisibilityRule`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dualview.errors import BagError, TransformError
from dualview.geometry.box_projection import (
    EDGES,
    ProjectedBoxes,
    ProjectionRule,
    VisibilityRule,
    box_corners,
    project_boxes,
)
from dualview.geometry.boxes import Boxes3D
from dualview.geometry.camera_models import distort_rays, largest_ray
from dualview.geometry.rigid import invert_rigid, transform_points
from dualview.scene.bag_messages import Annotation2D
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.frame import Annotations
from dualview.scene.labels_2d.labels import Labels2D
from dualview.scene.labels_2d.recorded_images import (
    camera_calibrations,
    image_stamps,
    nearest_images,
    world_from_camera,
)
from dualview.scene.recorded import read_transforms
from dualview.scene.rig import Rig

_WITHIN_NS = 60_000_000  # an image this near to a keyframe gets its labels, moved to its own exposure
_EDGE_STEPS = 17  # points along an edge that a lens bends


@dataclass
class LabelReport:
    """What was passed over: reason -> how often."""

    passed_over: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            "; ".join(f"{count} {reason}" for reason, count in self.passed_over.items())
            or "nothing passed over"
        )


def labels_from_3d(
    bag: BagReader, rig: Rig, rule: VisibilityRule | None = None
) -> tuple[Labels2D, LabelReport]:
    """2D labels for the image of each camera that is nearest to each annotated keyframe (within 60 ms).

    Boxes are moved to the image's own exposure with their velocity. Classes are those of the recording. An object counts with at least
    `min_lidar_points`; where points weren't counted, if it isn't known to be hidden. Occlusion is otherwise not looked at, as in the paper:
    rectangles span the whole object inside the image, also what is behind others. Raises BagError if there are no 3D labels.
    """
    rule, report = rule or VisibilityRule(), LabelReport()
    keyframes = bag.annotations(replace(rig, class_names=None, class_map={}))
    if not keyframes:
        raise BagError(f"{bag.path} has no 3D labels on {rig.annotations_topic}: there is nothing to project")
    transforms, calibrations = read_transforms(bag), camera_calibrations(bag, rig)
    stamps = [keyframe.stamp_ns for keyframe in keyframes]
    images = image_stamps(bag, rig)
    labels: Labels2D = {}
    for camera in rig.cameras:
        labels[camera.name] = {}
        if camera.name not in calibrations:
            report.passed_over[f"images of {camera.name}, which has no calibration"] += len(
                images[camera.name]
            )
            continue
        for index, image in nearest_images(images[camera.name], stamps, _WITHIN_NS):
            try:
                pose = world_from_camera(transforms, rig, camera, image)
            except TransformError:
                report.passed_over["images at whose exposure the vehicle's place isn't known"] += 1
                continue
            labels[camera.name][image.stamp_ns] = image_labels(
                keyframes[index], image.stamp_ns, torch.from_numpy(pose), calibrations[camera.name], rule
            )
    return labels, report


def image_labels(
    annotations: Annotations,
    stamp_ns: int,
    world_from_camera: Tensor,
    calibration: CameraCalibration,
    rule: VisibilityRule,
) -> list[Annotation2D]:
    """The 2D labels of one image at its exposure; world_from_camera [4, 4] float64."""
    boxes = annotations.boxes
    elapsed = (stamp_ns - annotations.stamp_ns) * 1e-9
    center = boxes.center.double() + boxes.velocity.nan_to_num(0.0).double() * elapsed
    projected = recorded_rectangles(replace(boxes, center=center), world_from_camera, calibration)
    counted = annotations.num_lidar_points >= 0
    seen = (counted & (annotations.num_lidar_points >= rule.min_lidar_points)) | (
        ~counted & ~(annotations.visibility <= 0)
    )
    kept = (rule.large_enough(projected, calibration.width) & seen).nonzero().flatten().tolist()
    return [
        Annotation2D(
            annotations.class_names[int(boxes.label[i])],
            1.0,
            tuple(projected.rectangles[i].tolist()),
            annotations.instance_ids[i],
        )
        for i in kept
    ]


def recorded_rectangles(
    boxes: Boxes3D, world_from_camera: Tensor, calibration: CameraCalibration
) -> ProjectedBoxes:
    """Rectangles of boxes (world frame) in the image as recorded, px from its corner, lens distortion included."""
    values = torch.cat([boxes.center.double(), boxes.size.double(), boxes.yaw.double()[:, None]], 1)
    camera_from_world = invert_rigid(world_from_camera.double())
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(
        calibration.pinhole_intrinsics if calibration.is_rectified else np.eye(3)
    )
    if calibration.is_rectified:
        matrix[:2, 2] += 0.5  # from pixel centres to the corner
    size = (calibration.height, calibration.width)
    projected = project_boxes(values, matrix @ camera_from_world, size)
    if calibration.is_rectified:
        return projected
    return _bent(values, camera_from_world, projected.depth, calibration)


def _bent(
    values: Tensor, camera_from_world: Tensor, depth: Tensor, calibration: CameraCalibration
) -> ProjectedBoxes:
    """The same through a lens that distorts: points along the boxes' edges, those inside the lens' field."""
    near = ProjectionRule().near
    corners = transform_points(camera_from_world, box_corners(values)).numpy()  # [M, 8, 3]
    ends = corners[:, EDGES]  # [M, 12, 2, 3]
    share = np.linspace(0.0, 1.0, _EDGE_STEPS)[:, None]
    points = ends[:, :, None, 0] * (1 - share) + ends[:, :, None, 1] * share  # [M, 12, S, 3]
    points = points.reshape(len(points), -1, 3)
    rays = points[..., :2] / np.maximum(points[..., 2:], near)
    limit = largest_ray(calibration.distortion_model, calibration.distortion)
    used = (points[..., 2] > near) & (np.linalg.norm(rays, axis=-1) < limit)
    rays = np.where(used[..., None], rays, 0.0)
    shown = distort_rays(rays.reshape(-1, 2), calibration.distortion_model, calibration.distortion)
    matrix = calibration.intrinsics
    pixels = (shown.reshape(-1, 2) @ matrix[:2, :2].T + matrix[:2, 2] + 0.5).reshape(rays.shape)
    low = np.where(used[..., None], pixels, np.inf).min(1)
    high = np.where(used[..., None], pixels, -np.inf).max(1)
    some = used.any(1)
    whole = torch.from_numpy(np.where(some[:, None], np.concatenate([low, high], 1), 0.0))
    limits = whole.new_tensor([calibration.width, calibration.height] * 2)
    clipped = torch.minimum(whole.clamp(min=0.0), limits)
    rule = ProjectionRule()
    sides = clipped[:, 2:] - clipped[:, :2]
    valid = torch.from_numpy(some) & (depth > rule.min_center_depth) & (sides >= rule.min_side).all(-1)
    return ProjectedBoxes(clipped, whole, depth, valid)
