"""Ground truth of one training sample, in the working frame of its images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dualview.networks.box_state import encode_boxes

TARGET_SIZE = 10  # box state without vertical velocity, which no data set annotates


@dataclass(frozen=True)
class GroundTruth:
    """n boxes of one sample.

    boxes [n, 9 or 10]: x, y, z, length, width, height (m), yaw (rad), vx, vy (m/s, NaN where unknown; a tenth
    number, vz, is never supervised). labels [n] int64. track_ids [n] int64 >= 0, the same object's in every
    frame, or None if objects can't be followed.
    """

    boxes: Tensor
    labels: Tensor
    track_ids: Tensor | None = None

    def first(self, count: int) -> GroundTruth:
        """The first `count` boxes."""
        ids = None if self.track_ids is None else self.track_ids[:count]
        return GroundTruth(self.boxes[:count], self.labels[:count], ids)

    def states(self) -> Tensor:
        """Box states [n, 10]; unknown velocities stay NaN."""
        return encode_boxes(self.boxes[:, :9])
