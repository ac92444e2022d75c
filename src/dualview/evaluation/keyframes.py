"""Labelled instants with what was predicted for them: the input of every metric."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.scene.frame import Annotations


@dataclass(frozen=True)
class Prediction:
    """Boxes that a detector or a recording gives for one frame: world frame (centre float64), `label` into `class_names`."""

    stamp_ns: int
    boxes: Boxes3D
    class_names: tuple[str, ...]

    def moved_to(self, stamp_ns: int) -> Prediction:
        """The same boxes carried on by their own velocities to another instant; those of unknown velocity stay."""
        seconds = (stamp_ns - self.stamp_ns) / 1e9
        velocity = torch.nan_to_num(self.boxes.velocity.double(), nan=0.0)
        center = self.boxes.center.double() + seconds * velocity
        return replace(self, stamp_ns=stamp_ns, boxes=replace(self.boxes, center=center))


@dataclass(frozen=True)
class Keyframe:
    """One labelled instant of one drive. prediction: None where no frame was put out near it. ego_position [3] m, world."""

    drive: str
    annotations: Annotations
    ego_position: np.ndarray
    prediction: Prediction | None

    @property
    def token(self) -> str:
        """A name that no other keyframe has."""
        return f"{self.drive}/{self.annotations.stamp_ns}"


def match_stamps(
    keyframes_ns: Sequence[int], frames_ns: Sequence[int], tolerance_s: float
) -> list[int | None]:
    """For each keyframe the index of the frame nearest in time, or None if it is farther away than the tolerance.

    `frames_ns` must rise. Two keyframes may get the same frame; that happens where labels come faster than frames.
    """
    found: list[int | None] = []
    for stamp in keyframes_ns:
        after = bisect_left(frames_ns, stamp)
        near = [i for i in (after - 1, after) if 0 <= i < len(frames_ns)]
        best = min(near, key=lambda i: abs(frames_ns[i] - stamp), default=None)
        inside = best is not None and abs(frames_ns[best] - stamp) <= round(tolerance_s * 1e9)
        found.append(best if inside else None)
    return found


def thin_out(annotations: Sequence[Annotations], interval_s: float) -> list[Annotations]:
    """The keyframes left when those that follow the last kept one faster than `interval_s` are dropped (5 % of slack)."""
    kept: list[Annotations] = []
    for annotation in annotations:
        if not kept or annotation.stamp_ns - kept[-1].stamp_ns >= round(0.95 * interval_s * 1e9):
            kept.append(annotation)
    return kept


def pair(
    drive: str,
    annotations: Sequence[Annotations],
    ego_positions: Sequence[np.ndarray],
    predictions: Sequence[Prediction],
    tolerance_s: float,
) -> list[Keyframe]:
    """Keyframes of one drive, each with the prediction of the frame nearest in time, carried on to the keyframe's stamp.

    Cameras and labels rarely share a stamp; moving a box by its own predicted velocity over these few milliseconds asks of the detector
    only what it claims to know. A keyframe without a frame keeps its labels: they count as missed.
    """
    ordered = sorted(predictions, key=lambda p: p.stamp_ns)
    matches = match_stamps([a.stamp_ns for a in annotations], [p.stamp_ns for p in ordered], tolerance_s)
    return [
        Keyframe(drive, a, np.asarray(ego), None if match is None else ordered[match].moved_to(a.stamp_ns))
        for a, ego, match in zip(annotations, ego_positions, matches, strict=True)
    ]
