"""Ray-based contrastive distillation (RayD3D, arXiv 2603.07493, equations 1 to 4): on the ray to an object, the
student's feature at the object shall be like the teacher's there, and unlike at wrong depths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from dualview.geometry.bev_grid import BevGrid
from dualview.supervision.numerics import full_precision, precise, zero_of
from dualview.supervision.ray_config import RayConfig
from dualview.supervision.ray_layout import RayLayout


@dataclass(frozen=True)
class RayPairs:
    """What S rays of a batch compare. sample int64 [S]; cells int64 [S, 1 + negatives]: flat cells, the first is
    the object's; valid bool [S, 1 + negatives]: rays with few cells have fewer negatives.
    """

    sample: Tensor
    cells: Tensor
    valid: Tensor


def draw_ray_pairs(
    layout: RayLayout,
    objects: Tensor,
    grid: BevGrid,
    config: RayConfig,
    generator: torch.Generator | None = None,
) -> RayPairs:
    """A random object cell of every ray that has one, and wrong places beside it on the same ray.

    objects int64 [B, Y, X], 0 = background (`object_cells`). Negatives are background cells farther than
    region / 2 cells from the positive, drawn without replacement; distances are between cell centres. Rays
    without an object or without any negative are left out.
    """
    owner = objects.flatten(1).gather(1, layout.cells.flatten(1)).view_as(layout.cells)
    foreground = (owner > 0) & layout.valid
    sample, ray = foreground.any(-1).nonzero().unbind(1)
    cells, foreground = layout.cells[sample, ray], foreground[sample, ray]  # [S, L]
    background = layout.valid[sample, ray] & ~foreground
    noise = _gumbel(foreground.shape, cells.device, generator)
    positive = torch.where(foreground, noise, -torch.inf).argmax(-1, keepdim=True)
    place = torch.stack([cells % grid.columns, cells // grid.columns], -1).double()
    distance = (place - place.gather(1, positive.unsqueeze(-1).expand(-1, -1, 2))).norm(dim=-1)
    # The largest of log-probability + Gumbel noise are a draw without replacement.
    score = _gumbel(foreground.shape, cells.device, generator)
    if config.negative_draw == "gaussian":
        score = score - distance.square() / (2 * config.sigma**2)
    score = torch.where(background & (distance > config.region / 2), score, -torch.inf)
    best, negative = score.topk(min(config.negatives, score.shape[1]), -1)
    chosen = torch.cat([positive, negative], 1)
    valid = torch.cat([torch.ones_like(positive, dtype=torch.bool), best > -torch.inf], 1)
    useful = valid[:, 1:].any(1)
    return RayPairs(sample[useful], cells.gather(1, chosen)[useful], valid[useful])


def contrastive_loss(student: Tensor, teacher: Tensor, pairs: RayPairs, config: RayConfig) -> Tensor:
    """The weighted loss of maps [B, D, Y, X] of student and teacher over all rays of the batch.

    With the logarithm outside the mean (equation 4) the loss has the constant log 2 added (if the teacher's side
    counts), so that it is 0 at best. No rays: zero, with a gradient of zeros.
    """
    if not len(pairs.sample):
        return zero_of(student)
    with full_precision(student.device):
        ours = _regions(student, pairs, config)  # [S, 1 + K, D]
        theirs = _regions(teacher.detach(), pairs, config)
        ratios = [_log_ratio(theirs[:, :1], ours, pairs.valid, config)]
        if config.teacher_side:
            ratios.append(_log_ratio(ours[:, :1], theirs, pairs.valid, config))
        logs = torch.stack(ratios)  # [1 or 2, S]
        if config.contrastive_log == "inner":
            return -config.contrastive_weight * logs.mean()
        mean = torch.logsumexp(logs.flatten(), 0) - math.log(logs.shape[1])
        return config.contrastive_weight * (math.log(len(logs)) - mean)


def _gumbel(shape: torch.Size, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Gumbel noise, float64; drawn on the generator's device, so that a seed means the same everywhere."""
    source = device if generator is None else generator.device
    uniform = torch.rand(shape, dtype=torch.float64, device=source, generator=generator).to(device)
    return -(-uniform.clamp(min=1e-300).log()).log()


def _regions(bev: Tensor, pairs: RayPairs, config: RayConfig) -> Tensor:
    """Mean feature [S, 1 + K, D] of the square around each cell; cells beyond the map's edge don't count."""
    pooled = functional.avg_pool2d(
        precise(bev), config.region, 1, config.region // 2, count_include_pad=False
    )
    flat = pooled.flatten(2).transpose(1, 2)  # [B, Y X, D]
    chosen = flat[pairs.sample.unsqueeze(1), pairs.cells]
    return functional.normalize(chosen, dim=-1, eps=1e-6) if config.normalize_regions else chosen


def _log_ratio(query: Tensor, keys: Tensor, valid: Tensor, config: RayConfig) -> Tensor:
    """log r [S]: the share of the first key [S, 1 + K, D] in all keys' similarity with the query [S, 1, D]
    (equations 2, 3), xi being one more key.
    """
    similarity = (query * keys).sum(-1) / config.contrastive_temperature
    similarity = torch.where(valid, similarity, -torch.inf)
    rest = torch.full_like(similarity[:, :1], math.log(config.xi))
    return similarity[:, 0] - torch.cat([similarity, rest], 1).logsumexp(1)
