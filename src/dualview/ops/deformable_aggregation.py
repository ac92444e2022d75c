"""Deformable aggregation: every instance reads the feature maps at its own points and sums what it finds.

Sparse4D (Lin et al. 2022, arXiv 2211.10581), section 3.3: f_n = sum over cameras v, levels l and points k of
w_nvlk * F_vl(p_nvk), where the channels are cut into G groups and each group has its own weights. Two plain
forms give the same numbers: `aggregate_dense` samples every point in every image (static shapes, the oracle
and what an exporter sees), `aggregate_visible` samples only the points that an image shows (on a surround rig
about one in seven), which is what a CPU wants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

OUTSIDE = -1.0
"""A location that no bilinear sample reaches: callers put points here that must contribute nothing."""


def deformable_aggregation(features: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples, the form that suits the device.

    features: L maps [B, V, C, h_l, w_l], the levels of V cameras. locations [B, V, N, K, 2]: (x, y) in 0..1
    of the image, (0, 0) its upper left corner; outside, features are zero (with the half-pixel blend of
    `grid_sample`, align_corners False). weights [B, N, V, L, K, G] with G a divisor of C. Returns [B, N, C]
    in the features' dtype; sums are made in float32 or better, and locations are never rounded below float32.
    Gradients flow into all three. Raises ValueError if shapes don't fit.
    """
    _check_shapes(features, locations, weights)
    tracing = torch.jit.is_tracing() or torch.compiler.is_compiling()
    if locations.device.type == "cpu" and not tracing:
        return aggregate_visible(features, locations, weights)
    return aggregate_dense(features, locations, weights)


def aggregate_dense(features: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_aggregation` by one `grid_sample` a level over all cameras and points; shapes don't depend
    on the data."""
    batch, cameras, instances = locations.shape[:3]
    channels, groups = features[0].shape[2], weights.shape[-1]
    dtype = torch.promote_types(locations.dtype, torch.float32)
    grid = (2 * locations.to(dtype) - 1).flatten(0, 1)  # [B V, N, K, 2]
    weights = weights.to(dtype).permute(3, 0, 2, 5, 1, 4).flatten(1, 2)  # [L, B V, G, N, K]
    total = grid.new_zeros(batch * cameras, groups, channels // groups, instances)
    for level, level_weights in zip(features, weights, strict=True):
        sampled = F.grid_sample(level.flatten(0, 1).to(dtype), grid, align_corners=False)  # [B V, C, N, K]
        sampled = sampled.unflatten(1, (groups, -1))
        with torch.autocast(sampled.device.type, enabled=False):  # which would sum in half precision
            total = total + torch.einsum("bgcnk,bgnk->bgcn", sampled, level_weights)
    total = total.view(batch, cameras, channels, instances).sum(1)
    return total.transpose(1, 2).to(features[0].dtype)


def aggregate_visible(features: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """`deformable_aggregation` that visits only the points which an image shows, camera by camera."""
    batch, cameras, instances = locations.shape[:3]
    channels, groups = features[0].shape[2], weights.shape[-1]
    dtype = torch.promote_types(locations.dtype, torch.float32)
    # The smallest map's half-pixel band is the widest: no sample reaches further out than that.
    margin = [0.5 / min(level.shape[axis] for level in features) for axis in (-1, -2)]
    inside = ((locations.detach() - 0.5).abs() < locations.new_tensor(margin) + 0.5).all(-1)  # [B, V, N, K]
    # Unbound first: the gradient of a slice is as big as the whole, that of all slices together is made once.
    maps = [level.to(dtype).flatten(0, 1).unbind(0) for level in features]  # L x (B V) x [C, h, w]
    by_view = [x.to(dtype).flatten(0, 1).unbind(0) for x in (locations, weights.transpose(1, 2))]
    total = [torch.zeros(instances, channels, dtype=dtype, device=locations.device) for _ in range(batch)]
    for view, (location, weight) in enumerate(zip(*by_view, strict=True)):
        instance, point = inside.flatten(0, 1)[view].nonzero(as_tuple=True)
        if not len(instance):
            continue
        grid = (2 * location[instance, point] - 1).view(1, 1, -1, 2)
        point_weights = weight[instance, :, point]  # [P, L, G]
        found = torch.zeros((), dtype=dtype, device=locations.device)
        for index, level in enumerate(maps):
            sampled = F.grid_sample(level[view].unsqueeze(0), grid, align_corners=False)  # [1, C, 1, P]
            sampled = sampled.view(groups, channels // groups, -1)
            found = found + sampled * point_weights[:, index].T.unsqueeze(1)
        total[view // cameras] = total[view // cameras].index_add(0, instance, found.flatten(0, 1).T)
    return torch.stack(total).to(features[0].dtype)


def _check_shapes(features: Sequence[Tensor], locations: Tensor, weights: Tensor) -> None:
    batch, cameras, instances, points, _ = locations.shape
    expected = (batch, instances, cameras, len(features), points)
    if weights.dim() != 6 or tuple(weights.shape[:5]) != expected or features[0].shape[2] % weights.shape[-1]:
        raise ValueError(
            f"weights must be [B, N, V, L, K, G] = {[*expected, 'G']} with G a divisor of the "
            f"{features[0].shape[2]} channels, got {list(weights.shape)}"
        )
    for level in features:
        if level.dim() != 5 or tuple(level.shape[:2]) != (batch, cameras):
            raise ValueError(
                f"feature maps must be [B, V, C, h, w] with B = {batch} and V = {cameras} as in the "
                f"locations, got {list(level.shape)}"
            )
