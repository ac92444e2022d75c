"""Spatial cross-attention: a BEV query looks at the cameras that its pillar falls into, at every level of their
features (BEVFormer, arXiv 2203.17270, section 3.3, equations 3 and 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.deformable_attention import (
    map_sizes,
    offset_layer,
    projection_layer,
    weight_layer,
)
from dualview.networks.pillar_attention import PillarViews
from dualview.ops.multi_scale_deformable_attention import multi_scale_deformable_attention

_MIN_DEPTH = 1e-5  # m
_FAR = 1e4  # image widths


def bevformer_pillars(grid: BevGrid, heights: int) -> Tensor:
    """Points [Q, D, 3] (m, the grid's frame): D = `heights` above each other in each cell, cells row by row.

    The lowest and the highest lie half a metre inside the grid's z range.
    """
    cells = grid.cell_centers().flatten(0, 1)
    z = torch.linspace(grid.z_min + 0.5, grid.z_max - 0.5, heights)
    return torch.cat(
        [cells[:, None].expand(-1, heights, -1), z.view(1, -1, 1).expand(len(cells), -1, -1)], -1
    )


def view_pillars(
    points: Tensor, image_from_working: Tensor, camera_mask: Tensor, image_size: tuple[int, int]
) -> PillarViews:
    """points [Q, D, 3] m; image_from_working [B, V, 4, 4] -> (u z, v z, z, 1) px; camera_mask bool [B, V];
    image_size (height, width) px. A point is visible in front of an unmasked camera, strictly inside its
    image.
    """
    matrix = image_from_working.float()
    rotation, translation = matrix[:, :, None, None, :3, :3], matrix[:, :, None, None, :3, 3]
    # No matrix product: autocast would round it.
    projected = (rotation * points.to(matrix.device).unsqueeze(-2)).sum(-1) + translation  # [B, V, Q, D, 3]
    depth = projected[..., 2:]
    extent = projected.new_tensor([image_size[1], image_size[0]])
    # Points beside and behind a camera would otherwise be so far out that sampling code may overflow.
    locations = (projected[..., :2] / depth.clamp(min=_MIN_DEPTH) / extent).clamp(-_FAR, _FAR)
    inside = ((locations > 0) & (locations < 1)).all(-1)
    visible = inside & (depth.squeeze(-1) > _MIN_DEPTH) & camera_mask[:, :, None, None]
    return PillarViews(locations, visible)


class SpatialCrossAttention(nn.Module):
    """Deformable attention to the cameras that see a query's pillar, averaged over them; with the residual.

    Point p of a query starts at point p mod D of its pillar. A query that no camera sees gets the residual and
    the output's bias only.
    """

    def __init__(
        self, dims: int, heads: int, levels: int, points: int, heights: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.heads, self.levels, self.points, self.heights = heads, levels, points, heights
        self.offsets = offset_layer(dims, heads, levels, points)
        self.weights = weight_layer(dims, heads, levels, points)
        self.value = projection_layer(dims)
        self.output = projection_layer(dims)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, features: Sequence[Tensor], views: PillarViews) -> Tensor:
        """query [B, Q, C]; features: L maps [B, V, C, h_l, w_l]. Returns [B, Q, C]."""
        batch, queries, dims = query.shape
        cameras = views.visible.shape[1]
        values = [self._value(level) for level in features]
        hit = views.visible.any(-1)  # [B, V, Q]
        order, valid = seen_first(hit)  # [B, V, S]: only queries that a camera sees are sampled in it
        chosen = order.flatten(1)  # [B, V S]

        offsets = self.offsets(query).float()
        logits = self.weights(query).float().unflatten(-1, (self.heads, -1))
        weights = logits.softmax(-1).unflatten(-1, (self.levels, self.points))
        offsets = offsets.unflatten(-1, (self.heads, self.levels, self.points, 2))
        cells = map_sizes([(level.shape[-2], level.shape[-1]) for level in features], offsets)
        offsets = offsets / cells[:, None]

        def of_seen(values: Tensor) -> Tensor:  # [B, Q, ...] -> [B V, S, ...]
            index = chosen.view(batch, -1, *[1] * (values.dim() - 2)).expand(-1, -1, *values.shape[2:])
            return values.gather(1, index).unflatten(1, (cameras, -1)).flatten(0, 1)

        reference = views.locations.gather(
            2, order[..., None, None].expand(-1, -1, -1, *views.locations.shape[3:])
        ).flatten(0, 1)  # [B V, S, D, 2]
        points = torch.arange(self.points, device=query.device) % self.heights
        locations = reference[:, :, points][:, :, None, None] + of_seen(offsets)
        attended = multi_scale_deformable_attention(values, locations, of_seen(weights))  # [B V, S, C]
        attended = attended * valid.flatten(0, 1).unsqueeze(-1)
        total = attended.new_zeros(batch, queries, dims).scatter_add(
            1,
            chosen.unsqueeze(-1).expand(-1, -1, dims),
            attended.unflatten(0, (batch, cameras)).flatten(1, 2),
        )
        count = hit.sum(1).clamp(min=1).unsqueeze(-1)  # [B, Q, 1]
        return query + self.dropout(self.output(total / count))

    def _value(self, level: Tensor) -> Tensor:
        """[B, V, C, h, w] -> projected [B V, C, h, w]."""
        tokens = self.value(level.flatten(0, 1).flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, (level.shape[-2], level.shape[-1]))


def seen_first(hit: Tensor) -> tuple[Tensor, Tensor]:
    """hit bool [..., Q] -> indices [..., S] of the hit entries in order, and bool [..., S] which of them count.

    S is the largest number of hits (at least 1), or Q while a graph is recorded, whose shapes mustn't depend
    on the data.
    """
    recording = torch.jit.is_tracing() or torch.compiler.is_compiling()
    most = hit.shape[-1] if recording else max(int(hit.sum(-1).max()), 1)
    order = hit.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[..., :most]
    return order, hit.gather(-1, order)
