"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159, equation 3): every query reads a few
points of every level, each head at points of its own.

out_q = concat over heads h of sum over levels l and points p of w_qhlp * F_l[h](x_qhlp), F_l[h] being the
channels of level l that belong to head h. Unlike `deformable_aggregation` the heads don't share their points.
Plain PyTorch: the default on a CPU, the oracle of a faster form, and what an exporter sees.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def multi_scale_deformable_attention(values: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums [M, Q, C] of bilinear samples.

    values: L maps [M, C, h_l, w_l], channels head by head. locations [M, Q, H, L, P, 2]: (x, y) in 0..1 of
    the map, (0, 0) its upper left corner, so cell (column, row) has its centre at ((column + 0.5) / w_l,
    (row + 0.5) / h_l); outside, maps are zero (`grid_sample`'s half-pixel blend, align_corners False).
    weights [M, Q, H, L, P]: used as they are, the softmax is the caller's. Sums are made in float32 or
    better, locations are never rounded below float32, and the result has the values' dtype. Gradients flow
    into all three. Raises ValueError if shapes don't fit.
    """
    _check_shapes(values, locations, weights)
    batch, queries, heads = locations.shape[:3]
    dtype = torch.promote_types(locations.dtype, torch.float32)
    grids = (2 * locations.to(dtype) - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # [L, M H, Q, P, 2]
    by_level = weights.to(dtype).permute(3, 0, 2, 1, 4).flatten(1, 2)  # [L, M H, Q, P]
    total = grids.new_zeros(batch * heads, values[0].shape[1] // heads, queries)
    for level, grid, weight in zip(values, grids, by_level, strict=True):
        maps = level.to(dtype).unflatten(1, (heads, -1)).flatten(0, 1)  # [M H, C / H, h, w]
        sampled = F.grid_sample(maps, grid, align_corners=False)  # [M H, C / H, Q, P]
        total = total + (sampled * weight.unsqueeze(1)).sum(-1)
    return total.unflatten(0, (batch, heads)).flatten(1, 2).transpose(1, 2).to(values[0].dtype)


def _check_shapes(values: Sequence[Tensor], locations: Tensor, weights: Tensor) -> None:
    if locations.dim() != 6 or locations.shape[-1] != 2:
        raise ValueError(f"locations must be [M, Q, H, L, P, 2], got {list(locations.shape)}")
    if weights.shape != locations.shape[:-1]:
        raise ValueError(
            f"weights must be [M, Q, H, L, P] = {list(locations.shape[:-1])}, got {list(weights.shape)}"
        )
    batch, _, heads, levels = locations.shape[:4]
    if len(values) != levels:
        raise ValueError(f"locations have {levels} levels but there are {len(values)} maps")
    for level in values:
        if level.dim() != 4 or level.shape[0] != batch or level.shape[1] % heads:
            raise ValueError(
                f"maps must be [M, C, h, w] with M = {batch} and C a multiple of the {heads} heads, "
                f"got {list(level.shape)}"
            )
