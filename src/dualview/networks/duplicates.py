"""Instances that say the same as a better one.

Published decoders let self-attention settle which of several instances on one object speaks; that takes long training. Until
then several instances that start near one peak, or a remembered one beside a fresh one, all say that there is a car.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualview.networks.box_state import LOG_SIZE
from dualview.networks.box_suppression import group_by_distance
from dualview.networks.refinement import Refined

_UNLIKELY = 0.01  # confidence below which nobody asks


def find_better(refined: Refined, distance: float) -> Tensor:
    """For each instance the one that speaks for it, int64 [B, N]: itself, or the instance with the highest score of the same
    best class whose centre is nearer than `distance` (m) plus half the shorter side of the smaller of the two boxes: near to
    the circle inside it.
    """
    logits, labels = refined.computed_class_logits.float().max(-1)
    confidence = logits.sigmoid()
    width = refined.anchors[..., LOG_SIZE][..., :2].double().exp().amin(-1).clamp_max(30.0)
    better = torch.arange(labels.shape[1], device=labels.device).expand_as(labels).clone()
    for sample in range(len(labels)):
        asked = (confidence[sample] > _UNLIKELY).nonzero()[:, 0]
        centers, radius = refined.anchors[sample, asked, :2], distance + width[sample, asked] / 2
        groups = group_by_distance(centers, confidence[sample, asked], radius.square(), labels[sample, asked])
        better[sample, asked] = asked[groups]
    return better


def silent(better: Tensor) -> Tensor:
    """bool [B, N]: instances that another one speaks for."""
    return better != torch.arange(better.shape[1], device=better.device)


def inherit_ids(track_ids: Tensor, better: Tensor, confidence: Tensor) -> Tensor:
    """Track ids [B, N] after instances gave theirs to the better one (`find_better`) where that has none: so an object
    keeps its id when a fresh instance comes to describe it better than the remembered one. Of several that would give
    theirs, the most confident one does; the others' are lost.
    """
    giving = silent(better)
    ids = track_ids.masked_fill(giving, -1)
    giving &= track_ids >= 0
    for sample in giving.any(1).nonzero()[:, 0].tolist():
        givers = giving[sample].nonzero()[:, 0]
        for giver in givers[confidence[sample, givers].argsort(descending=True)]:
            target = better[sample, giver]
            if ids[sample, target] < 0:
                ids[sample, target] = track_ids[sample, giver]
    return ids
