"""BEV pooling: sum depth-weighted image features into the cells of a bird's-eye-view grid.

out[cell] = sum over the frustum points in the cell of depth probability * context feature (Lift-Splat:
Philion & Fidler 2020; the factored form, in which the product over depth and channels never exists in memory,
is that of BEVPoolv2: Huang & Huang 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class BevPoolPlan:
    """Which frustum point falls into which cell, sorted by cell. A value: compute it once for a fixed rig, or
    each frame.

    point [K] int64: index into the flattened depth [B, N, D, H, W]; pixel [K] int64: index into the flattened
    [B, N, H, W]; offsets [cells + 1] int64: the points of cell i are offsets[i]:offsets[i + 1]; depth_shape:
    (B, N, D, H, W).
    """

    point: Tensor
    pixel: Tensor
    offsets: Tensor
    depth_shape: tuple[int, int, int, int, int]


def plan_bev_pool(cell: Tensor, cells: int) -> BevPoolPlan:
    """Sort frustum points by cell. cell int64 [B, N, D, H, W]: 0..cells - 1, negative = the point is
    dropped.
    """
    if cell.dim() != 5:
        raise ValueError(f"cell must be [B, N, D, H, W], got {list(cell.shape)}")
    batch, cameras, depths, height, width = cell.shape
    flat = cell.flatten()
    point = torch.nonzero(flat >= 0).squeeze(1)
    sorted_cell, order = torch.sort(
        flat[point], stable=True
    )  # stable: the order of summation is always the same
    point = point[order]
    area = height * width
    pixel = point // (depths * area) * area + point % area
    counts = torch.bincount(sorted_cell, minlength=cells)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return BevPoolPlan(point, pixel, offsets, (batch, cameras, depths, height, width))


def bev_pool(depth: Tensor, context: Tensor, plan: BevPoolPlan) -> Tensor:
    """Sums [cells, C] of depth * context.

    depth [B, N, D, H, W]: probability of each bin; context [B, N, C, H, W]. Gradients flow to both. The order
    of summation is fixed, so the forward pass is deterministic. Cells without points are zero.

    Raises ValueError if depth or context don't have the shape that the plan was made for.
    """
    batch, cameras, _, height, width = plan.depth_shape
    if tuple(depth.shape) != plan.depth_shape:
        raise ValueError(f"the plan was made for depth {list(plan.depth_shape)}, got {list(depth.shape)}")
    if (context.shape[0], context.shape[1], *context.shape[3:]) != (batch, cameras, height, width):
        raise ValueError(f"context {list(context.shape)} doesn't fit depth {list(depth.shape)}")
    # Each cell is a bag of pixels with weights: exactly what embedding_bag sums, without writing the products
    # anywhere.
    table = context.permute(0, 1, 3, 4, 2).reshape(-1, context.shape[2])
    weights = depth.flatten()[plan.point].to(table.dtype)
    return functional.embedding_bag(
        plan.pixel, table, plan.offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
