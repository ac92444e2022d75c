"""Which projected box answers for which labelled rectangle: bipartite matching, camera by camera ("2D supervised fine-tuning", section III;
costs 2 focal + 0.75 L1 + 0.25 (1 - GIoU))."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from dualview.geometry.box_projection import (
    ProjectedBoxes,
    ProjectionRule,
    VisibilityRule,
    center_form,
    generalized_iou,
    intersection_area,
    rectangle_area,
)
from dualview.supervision.matching import MatchingConfig, assign, classification_cost


@dataclass(frozen=True)
class ImageBoxTruth:
    """The labels of one image, in pixels of the network's image (from its upper left corner, after augmentation).

    rectangles [n, 4]: x min, y min, x max, y max. labels int64 [n]. depth [n]: m along the optical axis, NaN = not known. ignored [k, 4]:
    rectangles in which nothing is said about what is there (crowds, doubtful pseudo-labels); unmatched predictions in them aren't
    background. labelled_classes bool [classes]: which classes the labeller looked for, None = all; in the others nothing is background.
    delay: s from the instant for which boxes are predicted to the image's exposure.
    """

    rectangles: Tensor
    labels: Tensor
    depth: Tensor
    ignored: Tensor | None = None
    labelled_classes: Tensor | None = None
    delay: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.labels)
        if tuple(self.rectangles.shape) != (count, 4) or tuple(self.depth.shape) != (count,):
            raise ValueError(
                f"{count} labels need rectangles [{count}, 4] and depth [{count}], got {list(self.rectangles.shape)} and "
                f"{list(self.depth.shape)}"
            )


@dataclass(frozen=True)
class ImageBoxConfig:
    """Weights and rules, for matching and loss alike.

    depth_weight: of the depth among the five numbers of the L1 term; 0 leaves depth out. depth_scale: m by which depth is divided, so that
    it weighs like the others (their unit is the image height); None compares logarithms instead. depth_of: what the labels' depth is that
    of, the objects' "center" or, as in depth maps, the "surface" that looks at the camera. max_candidates: only so many of
    the best-scored queries of a sample take part in matching. background_weight: factor on the class loss of unmatched queries: 1 trusts
    that everything visible was labelled, 0 says that unlabelled objects may be anywhere. ignored_share: an unmatched query is not
    background if so much of its rectangle lies in one ignored rectangle. visibility: queries whose rectangle the labelling rule would have
    left out are not background either.
    """

    class_weight: float = 2.0
    box_weight: float = 0.75
    giou_weight: float = 0.25
    depth_weight: float = 1.0
    depth_scale: float | None = 61.2
    depth_of: Literal["center", "surface"] = "center"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    max_candidates: int = 300
    background_weight: float = 1.0
    ignored_share: float = 0.5
    projection: ProjectionRule = field(default_factory=ProjectionRule)
    visibility: VisibilityRule = field(default_factory=VisibilityRule)

    @property
    def matching(self) -> MatchingConfig:
        """The classification cost's weights as `classification_cost` takes them."""
        return MatchingConfig(
            class_weight=self.class_weight, focal_alpha=self.focal_alpha, focal_gamma=self.focal_gamma
        )


@dataclass(frozen=True)
class ImagePairs:
    """Matches of one image: query int64 [P] (ascending), label int64 [P] (index into the image's labels) and cost [P]."""

    query: Tensor
    label: Tensor
    cost: Tensor


def image_numbers(rectangles: Tensor, depth: Tensor, image_height: int, config: ImageBoxConfig) -> Tensor:
    """The five numbers [..., 5] that L1 compares: x, y of the centre, width, height, all in image heights, and depth."""
    if config.depth_scale is None:
        scaled = depth.clamp(min=config.projection.near).log()
    else:
        scaled = depth / config.depth_scale
    return torch.cat([center_form(rectangles) / image_height, scaled.unsqueeze(-1)], -1)


def number_weights(truth: ImageBoxTruth, config: ImageBoxConfig) -> Tensor:
    """Weights [n, 5] of those numbers: 1, for a depth that is known `depth_weight`, for one that isn't 0."""
    known = truth.depth.isfinite() & (truth.depth > 0)
    weights = truth.rectangles.new_ones(len(truth.labels), 5)
    weights[:, 4] = known * config.depth_weight
    return weights


def pairing_cost(
    class_logits: Tensor,
    rectangles: Tensor,
    depth: Tensor,
    truth: ImageBoxTruth,
    image_height: int,
    config: ImageBoxConfig,
) -> Tensor:
    """Cost [q, n] of giving q queries (logits [q, classes], rectangles [q, 4], depth [q]) the n labels of an image."""
    cost = classification_cost(class_logits, truth.labels, config.matching)
    ours = image_numbers(rectangles, depth, image_height, config)
    theirs = image_numbers(truth.rectangles, truth.depth.nan_to_num(1.0), image_height, config)
    weights = number_weights(truth, config)
    cost = cost + config.box_weight * ((ours[:, None] - theirs).abs() * weights).sum(-1)
    return cost + config.giou_weight * (1 - generalized_iou(rectangles[:, None], truth.rectangles))


@torch.no_grad()
def match_image(
    class_logits: Tensor,
    projected: ProjectedBoxes,
    candidates: Tensor,
    truth: ImageBoxTruth,
    image_height: int,
    config: ImageBoxConfig,
    repeats: int = 1,
) -> ImagePairs:
    """The cheapest pairs in one image: class_logits [N, classes], projected [N], candidates bool [N] (already those valid here).

    repeats: each label may be taken by so many queries, or fewer where there aren't enough for all.
    """
    query = candidates.nonzero().squeeze(-1)
    if len(query) == 0 or len(truth.labels) == 0:
        nothing = query.new_zeros(0)
        return ImagePairs(nothing, nothing, class_logits.new_zeros(0))
    cost = pairing_cost(
        class_logits[query].float(),
        projected.rectangles[query],
        projected.depth[query],
        truth,
        image_height,
        config,
    )
    labels = cost.shape[1]
    row, column = assign(cost.repeat(1, max(1, min(repeats, len(query) // labels))))
    return ImagePairs(query[row], column % labels, cost[row, column % labels])


def best_queries(class_logits: Tensor, seen: Tensor, count: int) -> Tensor:
    """bool [B, N]: the `count` best-scored queries of each sample among those that some camera sees (`seen` bool [B, N])."""
    score = class_logits.detach().float().amax(-1).masked_fill(~seen, -math.inf)
    kept = torch.zeros_like(seen)
    kept.scatter_(1, score.topk(min(count, score.shape[1]), dim=1).indices, True)
    return kept & seen


def in_ignored(rectangles: Tensor, truth: ImageBoxTruth, share: float) -> Tensor:
    """bool [N]: rectangles [N, 4] of which at least `share` lies in one of the image's ignored rectangles."""
    if truth.ignored is None or len(truth.ignored) == 0:
        return torch.zeros(len(rectangles), dtype=torch.bool, device=rectangles.device)
    inside = intersection_area(rectangles[:, None], truth.ignored)
    return (inside >= share * rectangle_area(rectangles)[:, None].clamp(min=1e-9)).any(-1)
