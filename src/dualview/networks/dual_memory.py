"""What a detector with both remembers: instances, and the bird's-eye-view maps of earlier moments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dualview.networks.bev_history import BevHistory
from dualview.networks.instance_memory import InstanceMemory


@dataclass(frozen=True)
class DualMemory(InstanceMemory):
    """An instance memory with maps beside it. The instances may be missing where the maps are there."""

    history: BevHistory | None = None

    @staticmethod
    def joined(instances: InstanceMemory, history: BevHistory | None) -> InstanceMemory:
        """Both as one value; without history the instance memory as it is."""
        if history is None:
            return instances
        return DualMemory(instances.next_track_id, instances.instances, history)

    @staticmethod
    def history_of(memory: InstanceMemory | None) -> BevHistory | None:
        """The maps in a memory that may hold some."""
        return memory.history if isinstance(memory, DualMemory) else None

    def reset(self) -> DualMemory:
        """Forget instances and maps, keep the count of ids."""
        return replace(self, instances=None, history=None)

    def restarted(self, samples: Tensor) -> InstanceMemory:
        """The memory with nothing remembered of `samples` (bool [B])."""
        history = None if self.history is None else self.history.restarted(samples)
        return DualMemory.joined(super().restarted(samples), history)

    def broken(self) -> Tensor | None:
        """bool [B]: samples whose memory isn't finite. None without memory."""
        found = [super().broken(), None if self.history is None else self.history.broken()]
        known = [samples for samples in found if samples is not None]
        return torch.stack(known).any(0) if known else None
