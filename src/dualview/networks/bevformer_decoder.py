"""BEVFormer's detection head: object queries attend to one another and to the BEV map, and refine a reference
point layer by layer (Deformable DETR, arXiv 2010.04159, appendix A.4; BEVFormer, arXiv 2203.17270, section
3.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.attention import ResidualAttention
from dualview.networks.bevformer_config import BevFormerConfig
from dualview.networks.bevformer_encoder import ResidualFeedForward
from dualview.networks.box_state import CENTER
from dualview.networks.deformable_attention import DeformableAttention
from dualview.networks.refinement import Refined

BOX_NUMBERS = 10  # a box state without vertical velocity
_CLASS_PRIOR = 0.01
_EDGE = 1e-5  # how near to 0 and 1 a fraction may come before its logit stops growing


@dataclass(frozen=True)
class QueryPrediction:
    """layers: what each decoder layer says (anchors [B, N, 11] in the working frame, vertical velocity zero; class
    logits only in the last layer unless all were asked for). features [B, N, C]: of the last layer.
    """

    layers: list[Refined]
    features: Tensor

    @property
    def class_logits(self) -> Tensor:
        """Of the last layer, [B, N, classes]."""
        return self.layers[-1].computed_class_logits

    @property
    def anchors(self) -> Tensor:
        """Box states of the last layer, [B, N, 11]."""
        return self.layers[-1].anchors


class BevFormerDecoderLayer(nn.Module):
    """Self-attention, deformable attention to the BEV map, feed-forward, each followed by a norm."""

    def __init__(self, config: BevFormerConfig) -> None:
        super().__init__()
        dims, heads, dropout = config.embed_dims, config.heads, config.dropout
        self.self_attention = ResidualAttention(dims, heads, dropout)
        self.self_norm = nn.LayerNorm(dims)
        self.bev_attention = DeformableAttention(dims, heads, config.bev_points, dropout)
        self.bev_norm = nn.LayerNorm(dims)
        self.feed_forward = ResidualFeedForward(dims, config.feedforward_dims, dropout)
        self.output_norm = nn.LayerNorm(dims)

    def forward(
        self, query: Tensor, position: Tensor, reference: Tensor, tokens: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """query, position [B, N, C]; reference [B, N, 2] and tokens [B, Y X, C] of a map of `size` (Y, X)."""
        placed = query + position
        query = self.self_norm(self.self_attention(placed, placed, query, query))
        query = self.bev_norm(self.bev_attention(query, position, reference, tokens, size))
        return self.output_norm(self.feed_forward(query))


class BevFormerDecoder(nn.Module):
    """Boxes and classes of learned object queries, read from a BEV map."""

    def __init__(self, config: BevFormerConfig) -> None:
        super().__init__()
        self.config = config
        dims, count = config.embed_dims, config.decoder_layers
        self.queries = nn.Parameter(torch.randn(config.num_queries, 2 * dims))  # (position, content)
        self.reference = nn.Linear(dims, 3)
        self.layers = nn.ModuleList(BevFormerDecoderLayer(config) for _ in range(count))
        self.class_branches = nn.ModuleList(_class_branch(dims, config.class_count) for _ in range(count))
        self.box_branches = nn.ModuleList(_box_branch(dims) for _ in range(count))
        nn.init.xavier_uniform_(self.reference.weight)
        nn.init.zeros_(self.reference.bias)

    def forward(self, bev: Tensor, all_classes: bool = False) -> QueryPrediction:
        """bev [B, C, Y, X]: a map of the config's grid; all_classes: class logits of every layer, for training."""
        size = (bev.shape[-2], bev.shape[-1])
        tokens = bev.flatten(2).transpose(1, 2)
        position, query = (half.expand(len(bev), -1, -1) for half in self.queries.chunk(2, dim=1))
        reference = self.reference(position).float().sigmoid()
        layers = []
        for index, module in enumerate(self.layers):
            layer = cast(BevFormerDecoderLayer, module)
            query = layer(query, position, reference[..., :2], tokens, size)
            with_classes = all_classes or index == len(self.layers) - 1
            refined, reached = self.read(index, query, reference, with_classes)
            layers.append(refined)
            reference = reached.detach()
        return QueryPrediction(layers, query)

    def read(
        self, layer: int, features: Tensor, reference: Tensor, with_classes: bool = True
    ) -> tuple[Refined, Tensor]:
        """What layer `layer` says: features [B, N, C], reference [B, N, 3] (x, y, z in 0..1 of the grid's
        range) -> the boxes, and where they are, [B, N, 3] in 0..1.
        """
        numbers = self.box_branches[layer](features).float()
        place = (numbers[..., CENTER] + inverse_sigmoid(reference)).sigmoid()
        low, extent = _range(self.config.grid, place)
        upward = torch.zeros_like(numbers[..., :1])
        anchors = torch.cat([low + place * extent, numbers[..., 3:], upward], -1)
        logits = self.class_branches[layer](features) if with_classes else None
        return Refined(anchors, logits, None), place


def inverse_sigmoid(fraction: Tensor) -> Tensor:
    """Logits of fractions in 0..1, finite at both ends."""
    fraction = fraction.clamp(0, 1)
    return (fraction.clamp(min=_EDGE) / (1 - fraction).clamp(min=_EDGE)).log()


def _range(grid: BevGrid, like: Tensor) -> tuple[Tensor, Tensor]:
    """Lower corner and extent [3] (m) of the grid's box."""
    low = like.new_tensor([grid.x_min, grid.y_min, grid.z_min])
    return low, like.new_tensor([grid.x_max, grid.y_max, grid.z_max]) - low


def _class_branch(dims: int, class_count: int) -> nn.Sequential:
    branch = nn.Sequential(
        nn.Linear(dims, dims), nn.LayerNorm(dims), nn.ReLU(),
        nn.Linear(dims, dims), nn.LayerNorm(dims), nn.ReLU(),
        nn.Linear(dims, class_count),
    )  # fmt: skip
    nn.init.constant_(branch[-1].get_parameter("bias"), -math.log((1 - _CLASS_PRIOR) / _CLASS_PRIOR))
    return branch


def _box_branch(dims: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, BOX_NUMBERS)
    )
