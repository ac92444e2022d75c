"""Ground truth of one training sample, in the working frame of its images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
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

    def __getitem__(self, index: Tensor | slice) -> GroundTruth:
        """Some of the boxes."""
        ids = None if self.track_ids is None else self.track_ids[index]
        return GroundTruth(self.boxes[index], self.labels[index], ids)

    def joined(self, other: GroundTruth) -> GroundTruth:
        """These boxes and after them those of `other`; without track ids unless both have them."""
        ids = None
        if self.track_ids is not None and other.track_ids is not None:
            ids = torch.cat([self.track_ids, other.track_ids])
        return GroundTruth(torch.cat([self.boxes, other.boxes]), torch.cat([self.labels, other.labels]), ids)

    def within(self, grid: BevGrid) -> GroundTruth:
        """The boxes whose centres lie on a grid, whatever their height."""
        place = grid.normalized(self.boxes)
        return self[((place > 0) & (place < 1)).all(1)]

    def states(self) -> Tensor:
        """Box states [n, 10]; unknown velocities stay NaN."""
        return encode_boxes(self.boxes[:, :9])
