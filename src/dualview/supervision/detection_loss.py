"""Losses of a decoder's layers (Sparse4Dv3, arXiv 2311.11722, section 3; weights and reductions of its
published code)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from dualview.networks.box_state import CENTER, COS_YAW, SIN_YAW
from dualview.networks.refinement import CENTERNESS, YAWNESS, Refined
from dualview.supervision.denoising import DenoisingTargets
from dualview.supervision.ground_truth import TARGET_SIZE, GroundTruth
from dualview.supervision.matching import Matches, MatchingConfig, match

_FLOAT_EPSILON = torch.finfo(torch.float32).eps  # what the published averages add to their divisors


@dataclass(frozen=True)
class DetectionLossConfig:
    """Weights of the losses.

    dimension_weights: of the L1 loss over the ten target numbers. class_threshold: a matched prediction below
    this class probability gets no box and quality loss. reversible_classes: labels whose front and back are
    alike (barriers); their target heading turns round when the prediction points the other way.
    attached_centerness_target: the centerness target passes gradient into the box, as in the published code.
    """

    matching: MatchingConfig = field(default_factory=MatchingConfig)
    class_weight: float = 2.0
    box_weight: float = 0.25
    centerness_weight: float = 1.0
    yawness_weight: float = 1.0
    dimension_weights: tuple[float, ...] = (2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    class_threshold: float = 0.05
    reversible_classes: tuple[int, ...] = ()
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    attached_centerness_target: bool = False


def detection_losses(
    layers: Sequence[Refined], truths: Sequence[GroundTruth], config: DetectionLossConfig
) -> tuple[dict[str, Tensor], list[Matches]]:
    """Loss terms "layer{i}/class|box|centerness|yawness" (already weighted, to be summed) and the matches of
    every layer."""
    losses: dict[str, Tensor] = {}
    matches = []
    for index, layer in enumerate(layers):
        found = match(layer.computed_class_logits, layer.anchors, truths, config.matching)
        for name, value in layer_losses(layer, found, config).items():
            losses[f"layer{index}/{name}"] = value
        matches.append(found)
    return losses, matches


def layer_losses(layer: Refined, matches: Matches, config: DetectionLossConfig) -> dict[str, Tensor]:
    """Losses of one layer against its matches. All are divided by the number of matched pairs, also those
    that see fewer."""
    logits, states = layer.computed_class_logits.float(), layer.anchors[..., :TARGET_SIZE]
    divisor = average_count(matches.matched.sum()) + _FLOAT_EPSILON
    focal = focal_loss(logits, matches.class_target, config.focal_alpha, config.focal_gamma)
    losses = {"class": config.class_weight * focal / divisor}
    confident = matches.matched & (logits.amax(-1).sigmoid() > config.class_threshold)
    states, labels = states[confident], matches.class_target[confident]
    weights = matches.box_weights[confident] * states.new_tensor(config.dimension_weights)
    target = matches.box_target[confident].nan_to_num(0.0)
    target = _turn_reversible(states, target, labels, config.reversible_classes)
    losses["box"] = config.box_weight * ((states - target).abs() * weights).sum() / divisor
    if layer.quality is not None:
        centerness, yawness = quality_losses(states, target, layer.quality[confident].float(), config)
        losses["centerness"] = config.centerness_weight * centerness / divisor
        losses["yawness"] = config.yawness_weight * yawness / divisor
    return losses


def denoising_losses(
    layers: Sequence[Refined],
    targets: DenoisingTargets,
    temporal_targets: DenoisingTargets,
    single_frame_layers: int,
    config: DetectionLossConfig,
) -> dict[str, Tensor]:
    """Loss terms "denoising{i}/class|box" of the denoising instances.

    The single-frame layers must reach `targets`, later ones `temporal_targets` (equal to `targets` on a first
    frame).
    """
    losses: dict[str, Tensor] = {}
    for index, layer in enumerate(layers):
        wanted = targets if index < single_frame_layers else temporal_targets
        valid = wanted.valid
        count = average_count(valid.sum()) + _FLOAT_EPSILON
        logits, labels = layer.computed_class_logits[valid].float(), wanted.class_target[valid]
        labels = torch.where(labels < 0, logits.shape[-1], labels)
        focal = focal_loss(logits, labels, config.focal_alpha, config.focal_gamma)
        positive = valid & (wanted.class_target >= 0)
        states, target = layer.anchors[..., :TARGET_SIZE][positive], wanted.box_target[positive]
        weights = states.new_tensor(config.dimension_weights) * ~target.isnan()
        distance = (states - target.nan_to_num(0.0)).abs() * weights
        losses[f"denoising{index}/class"] = config.class_weight * focal / count
        losses[f"denoising{index}/box"] = config.box_weight * distance.sum() / count
    return losses


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of the sigmoid focal loss (arXiv 1708.02002): logits [..., classes]; labels [...] int64, the number
    of classes = background."""
    target = F.one_hot(labels, logits.shape[-1] + 1)[..., :-1].to(logits.dtype)
    p = logits.sigmoid()
    missed = (1 - p) * target + p * (1 - target)
    weight = (alpha * target + (1 - alpha) * (1 - target)) * missed**gamma
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * weight).sum()


def gaussian_focal_loss(p: Tensor, target: Tensor, alpha: float = 2.0, gamma: float = 4.0) -> Tensor:
    """Sum of CornerNet's focal loss (arXiv 1808.01244, eq. 1) of probabilities against targets in 0..1, same
    shape."""
    epsilon = 1e-12
    positive = -(p + epsilon).log() * (1 - p) ** alpha * (target == 1)
    negative = -(1 - p + epsilon).log() * p**alpha * (1 - target) ** gamma
    return (positive + negative).sum()


def quality_losses(
    states: Tensor, target: Tensor, quality: Tensor, config: DetectionLossConfig
) -> tuple[Tensor, Tensor]:
    """Sums of the centerness and yawness losses of P matched boxes: states, target [P, 10], quality logits
    [P, 2].

    Centerness learns exp(-distance of the centres), yawness whether the headings agree within a right angle.
    """
    reached = states if config.attached_centerness_target else states.detach()
    centerness_target = (-(target[:, CENTER] - reached[:, CENTER]).norm(dim=-1)).exp()
    centerness = F.binary_cross_entropy_with_logits(
        quality[:, CENTERNESS], centerness_target, reduction="sum"
    )
    agrees = (_heading_agreement(states, target) > 0).to(quality.dtype)
    return centerness, gaussian_focal_loss(quality[:, YAWNESS].sigmoid(), agrees)


def average_count(count: Tensor) -> float:
    """A count averaged over all training processes, at least 1."""
    value = count.detach().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value = value / torch.distributed.get_world_size()
    return max(float(value), 1.0)


def _heading_agreement(states: Tensor, target: Tensor) -> Tensor:
    """Cosine [P] of the angle between the headings."""
    columns = [SIN_YAW, COS_YAW]
    return F.cosine_similarity(states[:, columns].detach(), target[:, columns], dim=-1)


def _turn_reversible(states: Tensor, target: Tensor, labels: Tensor, reversible: tuple[int, ...]) -> Tensor:
    """Targets with the heading turned round where the class allows it and the prediction points the other
    way."""
    opposite = torch.isin(labels, labels.new_tensor(reversible)) & (_heading_agreement(states, target) < 0)
    sign = target.new_ones(target.shape)
    sign[:, [SIN_YAW, COS_YAW]] = torch.where(opposite, -1.0, 1.0).to(sign.dtype).unsqueeze(1)
    return target * sign
