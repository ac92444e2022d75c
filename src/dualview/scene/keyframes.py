"""Boxes at any instant from the keyframes around it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dualview.geometry.boxes import concatenate_boxes, yaw_difference
from dualview.geometry.rigid import wrap_angle
from dualview.scene.frame import Annotations

_SAME_NS = 5_000_000  # a keyframe this near is the frame itself
_NEAR_NS = 55_000_000  # a keyframe this near is carried over with its own velocities


@dataclass(frozen=True)
class Keyframes:
    """The annotations of a drive in order of time, and how far apart (s) two may be to have boxes in between."""

    annotations: Sequence[Annotations]
    max_gap: float = 0.75
    interpolate: bool = True

    @cached_property
    def stamps(self) -> list[int]:
        """Of the annotations, ns."""
        return [a.stamp_ns for a in self.annotations]

    def at(self, stamp_ns: int) -> Annotations | None:
        """Boxes (world frame) at an instant, None if the keyframes don't say.

        A keyframe within 5 ms counts as it is. Otherwise an object that both neighbouring keyframes know is
        in between, linear in place and velocity and by the shorter turn in heading. What only the nearer one knows, or
        all of it without neighbours on both sides, is carried over with its own velocities from within 55 ms: a camera
        that leads the keyframes isn't told that nothing is there. Farther away it isn't guessed.
        """
        position = bisect_left(self.stamps, stamp_ns)
        near = [a for a in self.annotations[max(position - 1, 0) : position + 1]]
        if not near:
            return None
        nearest = min(near, key=lambda a: abs(a.stamp_ns - stamp_ns))
        if abs(nearest.stamp_ns - stamp_ns) <= _SAME_NS:
            return replace(nearest, stamp_ns=stamp_ns)
        carried = _carried_over(nearest, stamp_ns) if abs(nearest.stamp_ns - stamp_ns) <= _NEAR_NS else None
        if self.interpolate and len(near) == 2 and near[1].stamp_ns - near[0].stamp_ns <= self.max_gap * 1e9:
            between = interpolate_annotations(near[0], near[1], stamp_ns)
            return between if carried is None else _with_others(between, carried)
        return carried


def _carried_over(annotations: Annotations, stamp_ns: int) -> Annotations:
    """A keyframe at another instant, everything in it moved by its velocity."""
    boxes, elapsed = annotations.boxes, (stamp_ns - annotations.stamp_ns) * 1e-9
    moved = boxes.center + boxes.velocity.nan_to_num(0.0).to(boxes.center.dtype) * elapsed
    return replace(annotations, stamp_ns=stamp_ns, boxes=replace(boxes, center=moved))


def _with_others(annotations: Annotations, more: Annotations) -> Annotations:
    """Annotations, and after them the objects of `more` that aren't in them; both of one recording."""
    known = set(annotations.instance_ids)
    others = more[torch.tensor([i for i, name in enumerate(more.instance_ids) if name not in known], dtype=torch.int64)]
    return replace(
        annotations,
        boxes=concatenate_boxes([annotations.boxes, others.boxes]),
        instance_ids=annotations.instance_ids + others.instance_ids,
        num_lidar_points=torch.cat([annotations.num_lidar_points, others.num_lidar_points]),
        visibility=torch.cat([annotations.visibility, others.visibility]),
        attributes=annotations.attributes + others.attributes,
    )


def interpolate_annotations(before: Annotations, after: Annotations, stamp_ns: int) -> Annotations:
    """Objects that both keyframes know, at an instant between them; size, class and visibility are those of
    the nearer one.
    """
    places = {name: i for i, name in enumerate(after.instance_ids)}
    shared = [(i, places[name]) for i, name in enumerate(before.instance_ids) if name in places]
    first = torch.tensor([i for i, _ in shared], dtype=torch.int64)
    second = torch.tensor([j for _, j in shared], dtype=torch.int64)
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
    nearer = before[first] if share < 0.5 else after[second]
    a, b = before.boxes[first], after.boxes[second]

    def between(x: Tensor, y: Tensor) -> Tensor:
        return x + share * (y - x)

    velocity = between(a.velocity, b.velocity)
    velocity = torch.where(
        velocity.isnan(), torch.where(a.velocity.isnan(), b.velocity, a.velocity), velocity
    )
    boxes = replace(
        nearer.boxes,
        center=between(a.center, b.center),
        yaw=wrap_angle(a.yaw + share * yaw_difference(b.yaw, a.yaw)),
        velocity=velocity,
    )
    return replace(nearer, stamp_ns=stamp_ns, boxes=boxes)
