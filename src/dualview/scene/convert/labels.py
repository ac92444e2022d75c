"""Facts about labelled boxes that a dataset doesn't state but that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import Annotations

DETECTION_CLASSES = (
    "car", "truck", "construction_vehicle", "bus", "trailer", "barrier", "motorcycle", "bicycle",
    "pedestrian", "traffic_cone",
)  # fmt: skip
"""The ten classes of the nuScenes detection task, in its usual order."""


@dataclass(frozen=True)
class LabelledBoxes:
    """The labels of one keyframe as a dataset gives them: M boxes in the world frame.

    classes: names of `class_names`; instances: the dataset's names of the objects; center, size (length,
    width, height) [M, 3] m, yaw [M] rad, velocity [M, 3] m/s (NaN unknown); num_points [M] (-1 unknown);
    visibility [M] in 0..1 (NaN unknown); attributes: names for each box.
    """

    classes: list[str]
    instances: list[str]
    center: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    num_points: np.ndarray
    visibility: np.ndarray
    attributes: list[list[str]] = field(default_factory=list)
    class_names: tuple[str, ...] = DETECTION_CLASSES

    def annotations(self, stamp_ns: int, track_ids: dict[str, int]) -> Annotations:
        """As ground truth at a time. `track_ids` numbers the instances as they first appear, and grows."""
        labels = [self.class_names.index(name) for name in self.classes]
        numbers = [track_ids.setdefault(name, len(track_ids)) for name in self.instances]
        boxes = Boxes3D(
            center=torch.tensor(self.center, dtype=torch.float64),
            size=torch.tensor(self.size, dtype=torch.float32),
            yaw=torch.tensor(self.yaw, dtype=torch.float32),
            velocity=torch.tensor(self.velocity, dtype=torch.float32),
            label=torch.tensor(labels, dtype=torch.int64),
            score=torch.ones(len(labels)),
            track_id=torch.tensor(numbers, dtype=torch.int64),
        )
        return Annotations(
            stamp_ns=stamp_ns,
            boxes=boxes,
            class_names=self.class_names,
            instance_ids=tuple(self.instances),
            num_lidar_points=torch.tensor(self.num_points, dtype=torch.int64),
            visibility=torch.tensor(self.visibility, dtype=torch.float32),
            attributes=tuple(tuple(names) for names in self.attributes),
        )


def count_points(points: np.ndarray, center: np.ndarray, size: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """How many points [P, 3] lie in each box: int64 [M]. center, size [M, 3] m (size = length, width,
    height), yaw [M] rad."""
    order = np.argsort(points[:, 0])
    points = points[order]
    reach = np.hypot(size[:, 0], size[:, 1]) / 2
    start = np.searchsorted(points[:, 0], center[:, 0] - reach, "left")
    stop = np.searchsorted(points[:, 0], center[:, 0] + reach, "right")
    counts = np.zeros(len(center), dtype=np.int64)
    for i in range(len(center)):
        offset = points[start[i] : stop[i]] - center[i]
        offset = offset[np.abs(offset[:, 1]) <= reach[i]]
        cos, sin = np.cos(yaw[i]), np.sin(yaw[i])
        along = offset[:, 0] * cos + offset[:, 1] * sin
        across = offset[:, 1] * cos - offset[:, 0] * sin
        half = size[i] / 2
        counts[i] = (
            (np.abs(along) <= half[0]) & (np.abs(across) <= half[1]) & (np.abs(offset[:, 2]) <= half[2])
        ).sum()
    return counts


def track_velocities(
    stamps_ns: list[int],
    instances: list[list[str]],
    centers: list[np.ndarray],
    max_gap_ns: int = 1_500_000_000,
) -> list[np.ndarray]:
    """Velocities [M, 3] (m/s) of all boxes of each keyframe, from the centres [M, 3] (m) of the same instance
    before and after.

    Central differences; one-sided at the ends of a track; NaN where the neighbours are farther apart in time
    than `max_gap_ns` or there are none. Keyframes in order of time.
    """
    tracks: dict[str, list[tuple[int, int]]] = {}
    for frame, names in enumerate(instances):
        for row, name in enumerate(names):
            tracks.setdefault(name, []).append((frame, row))
    velocities = [np.full((len(names), 3), np.nan) for names in instances]
    for places in tracks.values():
        for i, (frame, row) in enumerate(places):
            before, after = places[max(i - 1, 0)], places[min(i + 1, len(places) - 1)]
            span = stamps_ns[after[0]] - stamps_ns[before[0]]
            if 0 < span <= max_gap_ns:
                moved = centers[after[0]][after[1]] - centers[before[0]][before[1]]
                velocities[frame][row] = moved / (span / 1e9)
    return velocities
