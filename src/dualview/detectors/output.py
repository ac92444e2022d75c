"""What a detector says about one frame."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dualview.geometry.bev_grid import BevGrid
from dualview.geometry.boxes import Boxes3D


@dataclass(frozen=True)
class BevMap:
    """features [C, Y, X] float; grid: where the cells lie in the ego frame at the frame's stamp; valid bool
    [Y, X]: some camera sees the cell.
    """

    features: Tensor
    grid: BevGrid
    valid: Tensor


@dataclass(frozen=True)
class StepTimes:
    """Seconds that the parts of a step took (wall clock; on a GPU the parts include waiting for it)."""

    inputs: float
    image_encoder: float
    bev: float
    decoder: float
    output: float

    @property
    def total(self) -> float:
        return self.inputs + self.image_encoder + self.bev + self.decoder + self.output


@dataclass(frozen=True)
class DetectorOutput:
    """One frame's result, on the CPU.

    tracks: M boxes in the ego frame at the frame's stamp, best score first; each has a track_id >= 0 that is
    never given to another object. `score` is class score * centerness. age int64 [M]: frames since the id was
    given (0 = this frame). camera_count int64 [M]: unmasked cameras whose image holds the box centre. bev:
    the BEV map, None without a BEV branch.
    """

    tracks: Boxes3D
    age: Tensor
    camera_count: Tensor
    bev: BevMap | None
    times: StepTimes
