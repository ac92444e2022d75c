"""What a picture of one frame shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from dualview.geometry.boxes import Boxes3D
from dualview.geometry.rigid import transform_points
from dualview.scene.frame import SurroundFrame


@dataclass(frozen=True)
class LabelledBoxes:
    """Boxes in the ego frame at the frame's anchor stamp; `label` indexes into `class_names`."""

    boxes: Boxes3D
    class_names: tuple[str, ...]

    def drawable(self) -> LabelledBoxes:
        """Those with finite numbers only; velocities may be unknown."""
        boxes = self.boxes
        finite = boxes.center.isfinite().all(-1) & boxes.size.isfinite().all(-1) & boxes.yaw.isfinite()
        return LabelledBoxes(boxes[finite], self.class_names)

    def name(self, index: int) -> str:
        """Class name of box `index`."""
        return self.class_names[int(self.boxes.label[index])]


@dataclass(frozen=True)
class FrameView:
    """One frame with everything that is drawn on it.

    frame: images at the size they are drawn. tracks: what was predicted, None if nothing was. truth: labels, None where there are
    none. trails: track id -> past and present positions float64 [T, 2], world frame, m. points: LiDAR
    float32 [P, 3], ego frame. bev_image: the BEV map as the node paints it, uint8 [Y, X, 3], forward to the
    right. problems: camera -> why it is masked. title: a line of text.
    """

    frame: SurroundFrame
    tracks: LabelledBoxes | None = None
    truth: LabelledBoxes | None = None
    trails: Mapping[int, np.ndarray] = field(default_factory=dict)
    points: np.ndarray | None = None
    bev_image: np.ndarray | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    title: str = ""


class Trails:
    """Where tracks have been in the last seconds, in the world frame."""

    def __init__(self, seconds: float = 3.0) -> None:
        self._length_ns = round(seconds * 1e9)
        self._past: dict[int, deque[tuple[int, np.ndarray]]] = {}

    def follow(self, frame: SurroundFrame, boxes: Boxes3D) -> dict[int, np.ndarray]:
        """Add the boxes of one frame (ego frame) and return the trail [T, 2] of each of them by track id.

        Time that goes back empties the memory.
        """
        if any(past and past[-1][0] >= frame.stamp_ns for past in self._past.values()):
            self._past.clear()
        world = transform_points(frame.world_from_ego_anchor, boxes.center.double()).numpy()
        for identity, position in zip(boxes.track_id.tolist(), world[:, :2], strict=True):
            if identity >= 0:
                self._past.setdefault(identity, deque()).append((frame.stamp_ns, position))
        oldest = frame.stamp_ns - self._length_ns
        for identity, past in list(self._past.items()):
            while past and past[0][0] < oldest:
                past.popleft()
            if not past:
                del self._past[identity]
        seen = [identity for identity in boxes.track_id.tolist() if identity in self._past]
        return {identity: np.stack([p for _, p in self._past[identity]]) for identity in seen}


def in_ego_frame(boxes: Boxes3D, world_from_ego: torch.Tensor) -> Boxes3D:
    """Boxes of the world frame as seen from the ego frame whose pose [4, 4] (float64) is given."""
    return boxes.transformed(torch.linalg.inv(world_from_ego.double()))
