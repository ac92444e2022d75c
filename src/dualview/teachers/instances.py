"""Annotated objects as rigid bodies in time: which LiDAR points are theirs, and where those are later."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.scene.frame import Annotations
from dualview.scene.keyframes import Keyframes

# Classes that stand where they stand: their points belong to the street.
STILL_CLASSES = frozenset(
    {
        "barrier", "traffic_cone", "bicycle_rack", "BOLLARD", "CONSTRUCTION_BARREL", "CONSTRUCTION_CONE", "MESSAGE_BOARD_TRAILER",
        "MOBILE_PEDESTRIAN_CROSSING_SIGN", "SIGN", "STOP_SIGN", "TRAFFIC_LIGHT_TRAILER",
    }
)  # fmt: skip


@dataclass(frozen=True)
class InstancePose:
    """Where an object's box is: center float64 [3] m, yaw rad, size [3] (length, width, height) m; world frame."""

    center: Tensor
    yaw: float
    size: Tensor

    @property
    def rotation(self) -> Tensor:
        """float64 [3, 3]: world axes from the box's own."""
        turn = torch.tensor(self.yaw, dtype=torch.float64)
        cos, sin, zero, one = turn.cos(), turn.sin(), torch.zeros_like(turn), torch.ones_like(turn)
        return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one]).view(3, 3)

    def local(self, world: Tensor) -> Tensor:
        """World points [P, 3] along the box's own axes, from its centre."""
        return (world - self.center) @ self.rotation

    def world(self, local: Tensor) -> Tensor:
        """The inverse of `local`."""
        return local @ self.rotation.T + self.center

    def matrix(self) -> Tensor:
        """world_from_box float64 [4, 4]."""
        transform = torch.eye(4, dtype=torch.float64)
        transform[:3, :3], transform[:3, 3] = self.rotation, self.center
        return transform


@dataclass(frozen=True)
class Instances:
    """The movable objects at one instant. known: by instance id. doubtful: objects that only one of the
    keyframes around knows, farther than 55 ms from it, so that nobody can say where they are; their surroundings are left out.
    """

    known: dict[str, InstancePose]
    doubtful: tuple[InstancePose, ...] = ()


def instances_at(keyframes: Keyframes, stamp_ns: int) -> Instances | None:
    """The movable objects at an instant; None if the keyframes don't say."""
    annotations = keyframes.at(stamp_ns)
    if annotations is None:
        return None
    known = _poses(annotations)
    after = bisect_right(keyframes.stamps, stamp_ns)
    doubtful = []
    for around in keyframes.annotations[max(after - 1, 0) : after + 1]:
        elapsed = (stamp_ns - around.stamp_ns) * 1e-9
        velocity = dict(zip(around.instance_ids, around.boxes.velocity.nan_to_num(0.0), strict=True))
        doubtful += [
            InstancePose(pose.center + velocity[name].double() * elapsed, pose.yaw, pose.size)
            for name, pose in _poses(around).items()
            if name not in known
        ]
    return Instances(known, tuple(doubtful))


def _poses(annotations: Annotations) -> dict[str, InstancePose]:
    boxes, names = annotations.boxes, annotations.class_names
    return {
        instance: InstancePose(boxes.center[i].double(), float(boxes.yaw[i]), boxes.size[i].double())
        for i, instance in enumerate(annotations.instance_ids)
        if names[int(boxes.label[i])] not in STILL_CLASSES
    }


@dataclass(frozen=True)
class Ownership:
    """owner int64 [P]: index into `names` of the object that a point belongs to, -1 the street, -2 nobody knows."""

    owner: Tensor
    names: tuple[str, ...]


def assign_points(world: Tensor, instances: Instances, enlarge: float = 0.4) -> Ownership:
    """Which object each world point [P, 3] belongs to: the first whose box, `enlarge` (m) longer, wider and
    higher altogether, holds it.
    """
    owner = torch.full((len(world),), -1, dtype=torch.int64)
    for pose in instances.doubtful:
        owner[_inside(world, pose, enlarge)] = -2
    names = tuple(instances.known)
    for index in reversed(range(len(names))):  # the first in the list has the last word
        owner[_inside(world, instances.known[names[index]], enlarge)] = index
    return Ownership(owner, names)


def _inside(world: Tensor, pose: InstancePose, enlarge: float) -> Tensor:
    """Indices of the points in a box; only those near it are looked at closely."""
    half = (pose.size + enlarge) / 2
    near = ((world - pose.center).abs() <= half.norm()).all(1).nonzero().squeeze(1)
    return near[(pose.local(world[near]).abs() <= half).all(1)]
