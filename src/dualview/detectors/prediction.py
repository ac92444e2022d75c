"""What a network says of a batch, whichever network it is: what training judges and distillation compares."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from dualview.detectors.state import SlotMemory
from dualview.networks.bev_branch import BevPrediction
from dualview.networks.bev_history import BevHistory
from dualview.networks.bevformer_memory import BevMemory
from dualview.networks.center_head import TaskPrediction
from dualview.networks.decoder import DecoderOutput
from dualview.networks.dual_memory import DualMemory
from dualview.networks.instance_memory import InstanceMemory


@dataclass(frozen=True)
class Prediction:
    """All that the network says of a batch: decoder (with the next memory; None if it rested or there is none),
    BEV map, dense depth (training only, m, a level each), the centre head's tasks (empty where it isn't run),
    the maps to remember (None where none are), and the pyramid's maps [B, N, C, h_i, w_i] (training only, where a detector
    shows them).
    """

    decoder: DecoderOutput | None
    bev: BevPrediction | None
    dense_depth: list[Tensor] = field(default_factory=list)
    center: list[TaskPrediction] = field(default_factory=list)
    remembered: BevHistory | BevMemory | None = None
    image_features: list[Tensor] = field(default_factory=list)

    @property
    def memory(self) -> SlotMemory:
        """What the next frame starts from; nothing remembered if the decoder rested."""
        if self.remembered is not None:
            return self.remembered
        instances = InstanceMemory() if self.decoder is None else self.decoder.memory
        return DualMemory.joined(instances, None if self.bev is None else self.bev.history)
