"""2D labels as recordings hold them, and as a network's image needs them.

Rectangles count from the upper left corner of the image as it was recorded (distorted, if it is), so an image spans [0, W] x [0, H].
The class "ignore" marks rectangles in which nothing is said about what is there: crowds, and doubtful pseudo-labels. An image with an empty
array was looked at and holds nothing; an image without one was not labelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dualview.geometry.box_projection import VisibilityRule, rectangle_area
from dualview.scene.bag_messages import Annotation2D, annotations_2d_from_message
from dualview.scene.bag_reader import BagReader
from dualview.scene.calibration import CameraCalibration
from dualview.scene.messages import stamp_ns
from dualview.scene.preprocess import ImageMapping
from dualview.scene.rig import Rig

IGNORE = "ignore"

Labels2D = dict[str, dict[int, list[Annotation2D]]]  # camera -> stamp (ns) of the image -> its labels


def read_labels_2d(bag: BagReader, rig: Rig) -> Labels2D:
    """All 2D labels of a recording, classes renamed by the rig's class map; cameras without any have an empty entry.

    Of two arrays for one image the later one counts.
    """
    topics = {rig.annotations_2d_topic_of(name): name for name in rig.camera_names}
    found: Labels2D = {name: {} for name in rig.camera_names}
    wanted = [topic for topic in topics if topic in bag.topics]
    for message in bag.messages([t for t in wanted if t]) if wanted else ():
        labels = [
            label._replace(class_name=rig.class_map.get(label.class_name, label.class_name))
            for label in annotations_2d_from_message(message.message)
        ]
        found[topics[message.topic]][stamp_ns(message.message.header.stamp)] = labels
    return found


def count_classes(labels: Labels2D) -> Counter[str]:
    """Class -> number of rectangles."""
    return Counter(
        label.class_name for images in labels.values() for found in images.values() for label in found
    )


@dataclass(frozen=True)
class NetworkLabels:
    """The labels of one image in pixels of the network's image. rectangles [n, 4] (x min, y min, x max, y max), labels int64 [n], source
    int64 [n]: index among the image's labels; ignored [k, 4]."""

    rectangles: Tensor
    labels: Tensor
    source: Tensor
    ignored: Tensor


def network_labels(
    labels: Sequence[Annotation2D],
    class_names: Sequence[str],
    calibration: CameraCalibration,
    image_size: tuple[int, int],
    min_score: float = 0.0,
    rule: VisibilityRule | None = None,
) -> NetworkLabels:
    """Labels of a recorded image for a network that sees it as `Preprocessor` gives it: undistorted, resized and cut to `image_size`.

    Classes that the network doesn't have are left out. Labels of class "ignore" or with a score below `min_score`, and those of which the
    cut leaves less than the visibility rule's share, become ignored rectangles.
    """
    rule = rule or VisibilityRule()
    kept = [
        i for i, label in enumerate(labels) if label.class_name in class_names or label.class_name == IGNORE
    ]
    boxes = torch.tensor([labels[i].box for i in kept], dtype=torch.float64).reshape(-1, 4)
    whole = rectangles_to_network(boxes, calibration, image_size)
    height, width = image_size
    clipped = torch.minimum(whole.clamp(min=0.0), whole.new_tensor([width, height, width, height]))
    area = rectangle_area(clipped)
    certain = torch.tensor(
        [labels[i].class_name != IGNORE and labels[i].score >= min_score for i in kept], dtype=torch.bool
    )
    certain &= area >= rule.min_inside * rectangle_area(whole)
    there = area > 0
    index = torch.tensor(
        [
            -1 if labels[i].class_name == IGNORE else list(class_names).index(labels[i].class_name)
            for i in kept
        ],
        dtype=torch.int64,
    )
    good = certain & there
    return NetworkLabels(
        clipped[good].float(),
        index[good],
        torch.tensor(kept, dtype=torch.int64)[good],
        clipped[there & ~certain].float(),
    )


def rectangles_to_network(
    rectangles: Tensor, calibration: CameraCalibration, image_size: tuple[int, int]
) -> Tensor:
    """Rectangles [n, 4] of the recorded image in pixels of the network's image (not clipped), float64.

    With a lens that distorts, the rectangle around the undistorted outline is meant, which is a little larger than the object's own.
    """
    if calibration.is_rectified:
        return points_to_network(rectangles.view(-1, 2), calibration, image_size).view(-1, 4)
    if not len(rectangles):
        return torch.zeros(0, 4, dtype=torch.float64)
    outline = torch.from_numpy(_outlines(rectangles.double().numpy()))  # [n, p, 2]
    pixels = points_to_network(outline.view(-1, 2), calibration, image_size).view(outline.shape)
    return torch.cat([pixels.amin(1), pixels.amax(1)], 1)


def points_to_network(points: Tensor, calibration: CameraCalibration, image_size: tuple[int, int]) -> Tensor:
    """Points [P, 2] of the recorded image in pixels of the network's image, float64; both count from the upper left corner."""
    mapping = ImageMapping.covering((calibration.height, calibration.width), image_size)
    if calibration.is_rectified:
        scale = torch.tensor(
            [mapping.resized[1] / calibration.width, mapping.resized[0] / calibration.height],
            dtype=torch.float64,
        )
        return points.double() * scale - torch.tensor([mapping.left, mapping.top], dtype=torch.float64)
    centred = (points.double().numpy() - 0.5).reshape(-1, 1, 2)  # OpenCV counts from the first pixel's centre
    undistort = (
        cv2.fisheye.undistortPoints if calibration.distortion_model == "equidistant" else cv2.undistortPoints
    )
    rays = undistort(centred, calibration.intrinsics, calibration.distortion).reshape(-1, 2)
    matrix = mapping.intrinsics(calibration)
    return torch.from_numpy(rays @ matrix[:2, :2].T + matrix[:2, 2])


def _outlines(rectangles: np.ndarray, steps: int = 9) -> np.ndarray:
    """Points [n, 4 * steps, 2] along the outlines of rectangles [n, 4]."""
    t = np.linspace(0.0, 1.0, steps)
    edges = [(t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t)]
    unit = np.stack([np.concatenate(axis) for axis in zip(*edges, strict=True)], -1)
    return rectangles[:, None, :2] + unit * (rectangles[:, None, 2:] - rectangles[:, None, :2])
