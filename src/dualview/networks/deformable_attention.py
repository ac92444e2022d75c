"""What BEVFormer's three deformable attentions share: where their points start, and the plain one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dualview.ops.multi_scale_deformable_attention import multi_scale_deformable_attention


def offset_layer(in_dims: int, heads: int, maps: int, points: int) -> nn.Linear:
    """The layer that gives offsets [..., heads * maps * points * 2].

    At the start it knows nothing of its input: head h looks along its own one of `heads` directions, point p
    lies p + 1 cells away (Deformable DETR, arXiv 2010.04159, appendix A.4).
    """
    layer = nn.Linear(in_dims, heads * maps * points * 2)
    angle = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1, dtype=torch.float32)
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        start = direction[:, None, None] * steps[:, None]  # [heads, 1, points, 2]
        layer.bias.copy_(start.expand(-1, maps, -1, -1).flatten())
    return layer


def weight_layer(in_dims: int, heads: int, maps: int, points: int) -> nn.Linear:
    """The layer that gives attention logits [..., heads * maps * points], all alike at the start."""
    layer = nn.Linear(in_dims, heads * maps * points)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def projection_layer(dims: int) -> nn.Linear:
    """A linear map of C channels: Xavier weights, zero bias."""
    layer = nn.Linear(dims, dims)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def as_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """Tokens [M, rows * columns, C], row by row -> map [M, C, rows, columns]."""
    return tokens.transpose(1, 2).unflatten(2, size)


def map_sizes(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(columns, rows) [L, 2] of maps of (rows, columns): what an offset in cells is divided by."""
    return torch.tensor([(columns, rows) for rows, columns in sizes], dtype=torch.float32, device=like.device)


class DeformableAttention(nn.Module):
    """Deformable attention to one map (BEVFormer's decoder on its BEV map), with the residual."""

    def __init__(self, dims: int, heads: int, points: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.offsets = offset_layer(dims, heads, 1, points)
        self.weights = weight_layer(dims, heads, 1, points)
        self.value = projection_layer(dims)
        self.output = projection_layer(dims)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        reference: Tensor,
        tokens: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """query, position [B, N, C]; reference [B, N, 2] in 0..1 of the map; tokens [B, rows * columns, C] of
        a map of `size` (rows, columns). Returns [B, N, C].
        """
        placed = query + position
        offsets = self.offsets(placed).float().unflatten(-1, (self.heads, 1, self.points, 2))
        weights = self.weights(placed).float().unflatten(-1, (self.heads, 1, self.points)).softmax(-1)
        locations = reference[:, :, None, None, None] + offsets / map_sizes([size], offsets)[:, None]
        value = as_map(self.value(tokens), size)
        attended = multi_scale_deformable_attention([value], locations, weights)
        return query + self.dropout(self.output(attended))
