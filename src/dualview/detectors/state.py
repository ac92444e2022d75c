"""What a detector carries from one frame to the next: a value, never a module attribute."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dualview.detectors.greedy_tracker import Tracks
from dualview.networks.bev_history import BevHistory
from dualview.networks.bevformer_memory import BevMemory
from dualview.networks.dual_memory import DualMemory
from dualview.networks.instance_memory import InstanceMemory

# What a network remembers of every sample of a batch; None: nothing, or nothing yet.
SlotMemory = InstanceMemory | DualMemory | BevHistory | BevMemory | None


@dataclass(frozen=True)
class TrackAges:
    """ids int64 [K] of the remembered tracks and for each the number of frames since its id was given, age
    int64 [K].
    """

    ids: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    age: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def of(self, ids: Tensor) -> Tensor:
        """Ages [M] in the next frame: one more for ids that are known, 0 for the others."""
        if not len(self.ids) or not len(ids):
            return torch.zeros_like(ids)
        same = ids.unsqueeze(1) == self.ids  # [M, K]
        return torch.where(same.any(1), (same * (self.age + 1)).amax(1), 0)


@dataclass(frozen=True)
class DetectorState:
    """Instances that the next frame starts from, and how old their tracks are; tracks: of the greedy tracker, where that gives the
    ids.
    """

    memory: InstanceMemory = field(default_factory=InstanceMemory)
    ages: TrackAges = field(default_factory=TrackAges)
    tracks: Tracks | None = None

    @property
    def next_track_id(self) -> int:
        """The first id that was never given; pass it to `initial_state` after a reset so that no id is used
        twice.
        """
        return self.memory.next_track_id if self.tracks is None else self.tracks.next_track_id
