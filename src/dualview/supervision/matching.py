"""Which prediction answers for which box: bipartite matching (DETR, arXiv 2005.12872; costs of Sparse4Dv3's
SparseBox3DTarget)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dualview.supervision.ground_truth import TARGET_SIZE, GroundTruth

_EPSILON = 1e-12
_FORBIDDEN = 1e8  # cost of a pair that has no number


@dataclass(frozen=True)
class MatchingConfig:
    """Weights of the costs. `dimension_weights` are those of the matching cost over the ten target numbers;
    `class_dimension_weights` replace the ones of every box of a class, in cost and loss (a cone has no
    heading)."""

    class_weight: float = 2.0
    box_weight: float = 0.25
    dimension_weights: tuple[float, ...] = (2.0, 2.0, 2.0, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0)
    class_dimension_weights: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    unmatchable_nan_boxes: bool = False


@dataclass(frozen=True)
class Matches:
    """What every prediction of a layer must become.

    matched bool [B, N]; class_target [B, N] int64, `background` (the number of classes) where unmatched;
    box_target [B, N, 10], zeros where unmatched; box_weights [B, N, 10]; pairs: for each sample (prediction,
    box) indices, by ascending prediction.
    """

    matched: Tensor
    class_target: Tensor
    box_target: Tensor
    box_weights: Tensor
    pairs: list[tuple[Tensor, Tensor]]


def classification_cost(class_logits: Tensor, labels: Tensor, config: MatchingConfig) -> Tensor:
    """Focal cost [N, n] of giving the logits [N, classes] the labels [n]: weight * (FL(p, is) - FL(p, is
    not))."""
    p = class_logits.sigmoid()
    alpha, gamma = config.focal_alpha, config.focal_gamma
    negative = -(1 - p + _EPSILON).log() * (1 - alpha) * p**gamma
    positive = -(p + _EPSILON).log() * alpha * (1 - p) ** gamma
    return (positive[:, labels] - negative[:, labels]) * config.class_weight


def box_cost(states: Tensor, targets: Tensor, weights: Tensor, config: MatchingConfig) -> Tensor:
    """Weighted L1 cost [N, n] between states [N, 10] and targets [n, 10] with the targets' own weights [n,
    10]."""
    difference = (states.unsqueeze(1) - targets.unsqueeze(0)).abs()
    dimension_weights = states.new_tensor(config.dimension_weights)
    return (difference * weights.unsqueeze(0) * dimension_weights).sum(-1) * config.box_weight


def target_states(truth: GroundTruth, config: MatchingConfig) -> tuple[Tensor, Tensor]:
    """Box states [n, 10] that predictions must reach, and the weights [n, 10] of their numbers.

    Unknown numbers (NaN) become zeros of weight zero, unless `unmatchable_nan_boxes` keeps the published
    behaviour, where they stay and weights of a class overrule them.
    """
    states = truth.states()
    known = ~states.isnan()
    weights = known.to(states.dtype)
    for label, own in config.class_dimension_weights.items():
        weights = torch.where((truth.labels == label).unsqueeze(1), states.new_tensor(own), weights)
    if config.unmatchable_nan_boxes:
        return states, weights
    return states.nan_to_num(0.0), weights * known


def assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Cheapest one-to-one pairs of a cost matrix [N, n]: (row indices ascending, column indices), on the
    CPU."""
    values = cost.detach().double().cpu().numpy()
    values = np.where(np.isneginf(values) | np.isnan(values), _FORBIDDEN, values)
    rows, columns = linear_sum_assignment(values)
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(columns).to(cost.device)


def match(
    class_logits: Tensor, states: Tensor, truths: Sequence[GroundTruth], config: MatchingConfig
) -> Matches:
    """Match predictions with boxes, sample by sample: class_logits [B, N, classes], states [B, N, >= 10]."""
    background = class_logits.shape[-1]
    states = states[..., :TARGET_SIZE].detach().float()
    logits = class_logits.detach().float()
    batch, count = states.shape[:2]
    matched = torch.zeros(batch, count, dtype=torch.bool, device=states.device)
    class_target = torch.full((batch, count), background, dtype=torch.int64, device=states.device)
    box_target, box_weights = torch.zeros_like(states), torch.zeros_like(states)
    pairs = []
    for b, truth in enumerate(truths):
        targets, weights = target_states(truth, config)
        cost = classification_cost(logits[b], truth.labels, config) + box_cost(
            states[b], targets, weights, config
        )
        prediction, box = assign(cost)
        matched[b, prediction] = True
        class_target[b, prediction] = truth.labels[box]
        box_target[b, prediction] = targets[box].to(states.dtype)
        box_weights[b, prediction] = weights[box].to(states.dtype)
        pairs.append((prediction, box))
    return Matches(matched, class_target, box_target, box_weights, pairs)
