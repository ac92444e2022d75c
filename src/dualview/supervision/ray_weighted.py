"""Ray-based weighted distillation (RayD3D, arXiv 2603.07493, equations 5 to 8): the student's map imitates the
teacher's, most where the two disagree on the depth at which something stands on a ray.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dualview.supervision.numerics import full_precision, precise
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_layout import RayLayout


def ray_discrepancy(student: Tensor, teacher: Tensor, layout: RayLayout, config: RayConfig) -> Tensor:
    """How differently two maps [B, D, Y, X] spread their activation along each ray: A [B, R] >= 0 (equations 5,
    6). 0 for rays without cells.
    """
    taught, learnt = (_along_rays(bev, layout, config) for bev in (teacher.detach(), student))
    if config.measure == "cosine":
        norms = torch.linalg.vector_norm(taught, dim=-1) * torch.linalg.vector_norm(learnt, dim=-1)
        difference = 1 - (taught * learnt).sum(-1) / norms.clamp(min=config.epsilon)
    elif config.measure == "js":
        middle = (taught + learnt) / 2
        difference = (_divergence(taught, middle, config) + _divergence(learnt, middle, config)) / 2
    else:
        difference = _divergence(taught, learnt, config)
    # Rounding can give a trifle below zero. Without `renormalize` shares don't sum to 1, and a ray on which the student has more
    # than the teacher is far below: it gets no weight there.
    return torch.where(layout.valid.any(-1), difference, 0.0).clamp(min=0)


def ray_weights(discrepancy: Tensor, layout: RayLayout, objects: Tensor, config: RayConfig) -> Tensor:
    """Weight [B, Y, X] of every cell from A [B, R] (equation 7) and objects int64 [B, Y, X], 0 = background.

    Background: mean of A over the rays through the cell (the nearest ray's if none goes through), times
    `background`. Objects: everywhere the largest A of all rays through any of the object's cells.
    """
    owner = objects.flatten(1)
    spread = discrepancy.unsqueeze(-1) * layout.valid  # [B, R, L]
    cells, spread = layout.cells.flatten(1), spread.flatten(1)
    zeros = discrepancy.new_zeros(owner.shape)
    total = zeros.scatter_add(1, cells, spread)
    rays = zeros.scatter_add(1, cells, layout.valid.flatten(1).to(zeros.dtype))
    mean = torch.where(rays > 0, total / rays.clamp(min=1), discrepancy.gather(1, layout.nearest))
    slots = int(owner.max()) + 1
    best = discrepancy.new_zeros(len(owner), slots)
    best = best.scatter_reduce(1, owner.gather(1, cells), spread, "amax")
    # An object between the rays has what its cells have.
    uncovered = torch.where(rays > 0, 0.0, mean)
    best = best.scatter_reduce(1, owner, uncovered, "amax")
    return torch.where(owner > 0, best.gather(1, owner), config.background * mean).view(objects.shape)


def weighted_loss(
    student: Tensor, teacher: Tensor, layout: RayLayout, objects: Tensor, config: RayConfig
) -> Tensor:
    """The weighted L1 distance of maps [B, D, Y, X] (equation 8), mean over cells and batch. Without objects the
    background still teaches.

    The weights follow the student but get no gradient, so the value may rise while |L - C| falls: judge progress
    by the distance.
    """
    with full_precision(student.device):
        ours, theirs = precise(student), precise(teacher.detach())
        if config.standardize:
            ours, theirs = _standardized(ours), _standardized(theirs)
        seen = ours.detach() if config.detach_weight else ours
        weight = ray_weights(ray_discrepancy(seen, theirs, layout, config), layout, objects, config)
        distance = (theirs - ours).abs()
        distance = distance.mean(1) if config.channel_reduction == "mean" else distance.sum(1)
        return config.weighted_weight * (weight * distance).mean()


def _along_rays(bev: Tensor, layout: RayLayout, config: RayConfig) -> Tensor:
    """Share [B, R, L] of the activation that each cell of a ray has; 0 where there is no cell."""
    activation = precise(bev).abs().mean(1).flatten(1) / config.activation_temperature  # [B, Y X]
    if not config.renormalize:
        activation = activation.log_softmax(1)
    rays = activation.gather(1, layout.cells.flatten(1)).view_as(layout.cells)
    if config.renormalize:
        # Equal to the map's softmax divided by its sum on the ray, but nothing underflows.
        lowest = torch.finfo(rays.dtype).min
        rays = torch.where(layout.valid, rays, lowest).log_softmax(-1)
    return torch.where(layout.valid, rays.exp(), 0.0)


def _divergence(first: Tensor, second: Tensor, config: RayConfig) -> Tensor:
    """KL(first || second) [B, R] in nats."""
    return (first * ((first + config.epsilon).log() - (second + config.epsilon).log())).sum(-1)


def _standardized(bev: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(bev, (0, 2, 3), correction=0, keepdim=True)
    return (bev - mean) / deviation.clamp(min=1e-5)
