"""Distilling a foundation model's feature map of the ground into a detector's BEV map (DualViewDistill, arXiv
2510.10287, Sec. III-B): directions are compared, on labelled cells only.

    L = (1 / |M|) sum_{(i, j) in M} (1 - <p_ij, y_ij> / (|p_ij| |y_ij| + 1e-6)),   p = W_p F_bev + b_p
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dualview.supervision.numerics import precise, zero_of

_EPS = 1e-6


@dataclass(frozen=True)
class MapDistillationSettings:
    """labels: the folder that `dualview label-maps` wrote; "~" and environment variables are filled in. weight: lambda
    (published: 7.0); 0 turns the loss off.
    """

    labels: str
    weight: float = 7.0

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight is {self.weight}: give a weight of 0 (off) or more")


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine [...] of vectors [..., D]: 0 = same direction, 1 = at right angles, 2 = opposite."""
    predicted, target = precise(predicted), precise(target)
    norms = predicted.norm(dim=-1) * target.norm(dim=-1)
    return 1 - (predicted * target).sum(-1) / (norms + _EPS)


def map_distillation_loss(
    features: Tensor, head: Callable[[Tensor], Tensor], target: Tensor, mask: Tensor
) -> Tensor:
    """Mean cosine distance over the labelled cells of a batch; 0, with zero gradients, if there is none.

    features [B, C, Y, X]: the BEV map. head: vectors [K, C] -> [K, D], a linear layer; it is asked about labelled cells
    only. target [K, D]: their labels, in the order of `mask` bool [B, Y, X]. No gradient flows into the target. Raises
    ValueError if there aren't as many labels as labelled cells.
    """
    if int(mask.sum()) != len(target):
        raise ValueError(f"{len(target)} labels for {int(mask.sum())} labelled cells: give one for each")
    predicted = head(precise(features.movedim(1, -1)[mask]))
    if not len(target):
        return zero_of(predicted, features)
    return cosine_distance(predicted, target.detach()).mean()
