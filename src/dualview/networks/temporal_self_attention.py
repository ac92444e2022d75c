"""Temporal self-attention: BEV queries look at the previous BEV map and at one another (BEVFormer, arXiv
2203.17270, section 3.4, equation 5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dualview.networks.deformable_attention import (
    as_map,
    map_sizes,
    offset_layer,
    projection_layer,
    weight_layer,
)
from dualview.ops.multi_scale_deformable_attention import multi_scale_deformable_attention

_MAPS = 2  # the previous one and the current one


class TemporalSelfAttention(nn.Module):
    """Deformable attention to two BEV maps of the same grid, their results averaged; with the residual."""

    def __init__(self, dims: int, heads: int, points: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = offset_layer(2 * dims, heads, _MAPS, points)
        self.weights = weight_layer(2 * dims, heads, _MAPS, points)
        self.value = projection_layer(dims)
        self.output = projection_layer(dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        previous: Tensor,
        current: Tensor,
        references: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """One look at both maps.

        query [B, Q, C] and its positional encoding [B or 1, Q, C]; previous, current [B, Q, C]: the two maps
        of `size` (rows, columns), row by row; references [B, 2, Q, 2] in 0..1: where each query lies in the
        previous and in the current map. Returns [B, Q, C].

        Offsets and weights come from the previous map's token at the query's own cell (without position)
        beside the placed query; each map has a softmax of its own.
        """
        batch = query.shape[0]
        seen = torch.cat([previous, query + position], -1)
        offsets = self.offsets(seen).float().unflatten(-1, (self.heads, _MAPS, self.points, 2))
        weights = self.weights(seen).float().unflatten(-1, (self.heads, _MAPS, self.points)).softmax(-1)
        # the two maps side by side in the batch: [B 2, Q, heads, 1 level, points, 2]
        offsets = offsets.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).unsqueeze(3)
        weights = weights.permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3)
        references = references.flatten(0, 1)[:, :, None, None, None]
        locations = references + offsets / map_sizes([size], offsets)[:, None]
        value = self.value(torch.stack([previous, current], 1).flatten(0, 1))
        attended = multi_scale_deformable_attention([as_map(value, size)], locations, weights)
        return query + self.dropout(self.output(attended.unflatten(0, (batch, _MAPS)).mean(1)))
