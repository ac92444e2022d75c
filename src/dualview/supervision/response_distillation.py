"""Response distillation between two centre heads (RayD3D, arXiv 2603.07493, equation 9, which only says "mean over
heads"; how a head's difference is taken is this project's reading).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dualview.networks.center_head import REGRESSIONS, TaskPrediction
from dualview.supervision.numerics import full_precision, precise, zero_of


@dataclass(frozen=True)
class ResponseConfig:
    """weight of the term. floor: what a heatmap cell without any object counts, beside 1 at the teacher's peaks.
    threshold: regressions count where the teacher's highest class probability is above it.
    """

    weight: float = 1.0
    floor: float = 0.1
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if self.weight <= 0 or self.floor < 0 or not 0 <= self.threshold < 1:
            raise ValueError(
                f"{self}: weight must be more than 0 (response: null turns it off), floor 0 or more, threshold a probability below 1"
            )


def response_loss(
    student: Sequence[TaskPrediction], teacher: Sequence[TaskPrediction], config: ResponseConfig
) -> Tensor:
    """Mean over tasks x 6 branches of the L1 distance between the heads' outputs, weighted.

    Heatmaps: of probabilities, over all cells, each weighted by floor + teacher's probability. Regressions: mean
    over the cells where the teacher sees something; zero where it sees nothing. Raises ValueError if the heads
    don't have the same tasks on the same cells.
    """
    _check(student, teacher)
    total = zero_of(*(getattr(task, name) for task in student for name in ("heatmap", *REGRESSIONS)))
    with full_precision(total.device):
        for ours, theirs in zip(student, teacher, strict=True):
            target = precise(theirs.heatmap.detach()).sigmoid()
            distance = (precise(ours.heatmap).sigmoid() - target).abs()
            total = total + ((config.floor + target) * distance).mean()
            seen = target.amax(1) > config.threshold  # [B, Y, X]
            for name in REGRESSIONS:
                taught, learnt = getattr(theirs, name).detach(), getattr(ours, name)
                difference = precise(learnt).movedim(1, -1)[seen] - precise(taught).movedim(1, -1)[seen]
                total = total + difference.abs().sum() / max(difference.numel(), 1)
    return config.weight * total / (len(student) * (1 + len(REGRESSIONS)))


def _check(student: Sequence[TaskPrediction], teacher: Sequence[TaskPrediction]) -> None:
    ours, theirs = ([tuple(task.heatmap.shape) for task in tasks] for tasks in (student, teacher))
    if ours != theirs or not ours:
        raise ValueError(
            f"response distillation compares the same tasks on the same cells, but the student's heatmaps are {ours} and the "
            f"teacher's {theirs}: give both centre heads the same tasks and grid, or switch response distillation off"
        )
