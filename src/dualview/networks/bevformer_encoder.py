"""BEVFormer's encoder: camera features and the previous BEV map -> the current BEV map (Li et al. 2022, arXiv
2203.17270, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from dualview.networks.bevformer_camera_attention import (
    SpatialCrossAttention,
    bevformer_pillars,
    view_pillars,
)
from dualview.networks.bevformer_config import BevFormerConfig
from dualview.networks.bevformer_memory import MOTION_SIZE, PreviousBev
from dualview.networks.pillar_attention import PillarViews
from dualview.networks.temporal_self_attention import TemporalSelfAttention


class ResidualFeedForward(nn.Module):
    """x + mlp(x) with one hidden layer."""

    def __init__(self, dims: int, hidden_dims: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.expand, self.contract = nn.Linear(dims, hidden_dims), nn.Linear(hidden_dims, dims)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.xavier_uniform_(self.contract.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(self.expand(x).relu())
        return x + self.dropout(self.contract(hidden))


class LearnedGridPosition(nn.Module):
    """Positional encoding of a grid: half of the channels belong to the column, half to the row."""

    def __init__(self, rows: int, columns: int, dims: int) -> None:
        super().__init__()
        self.column = nn.Parameter(torch.rand(columns, dims // 2))
        self.row = nn.Parameter(torch.rand(rows, dims // 2))

    def forward(self) -> Tensor:
        """[1, rows * columns, C], row by row."""
        rows, columns = len(self.row), len(self.column)
        column = self.column.unsqueeze(0).expand(rows, -1, -1)
        row = self.row.unsqueeze(1).expand(-1, columns, -1)
        return torch.cat([column, row], -1).flatten(0, 1).unsqueeze(0)


class MotionEmbedding(nn.Module):
    """Two linear maps, each followed by ReLU, and a norm: [B, 18] -> [B, C]."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(MOTION_SIZE, dims // 2), nn.Linear(dims // 2, dims)
        self.norm = nn.LayerNorm(dims)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.xavier_uniform_(self.second.weight)

    def forward(self, motion: Tensor) -> Tensor:
        return self.norm(self.second(self.first(motion).relu()).relu())


class BevFormerEncoderLayer(nn.Module):
    """Temporal self-attention, spatial cross-attention, feed-forward, each followed by a norm."""

    def __init__(self, config: BevFormerConfig) -> None:
        super().__init__()
        dims, heads, dropout = config.embed_dims, config.heads, config.dropout
        self.temporal_attention = TemporalSelfAttention(dims, heads, config.bev_points, dropout)
        self.temporal_norm = nn.LayerNorm(dims)
        self.camera_attention = SpatialCrossAttention(
            dims, heads, config.num_levels, config.camera_points, config.heights, dropout
        )
        self.camera_norm = nn.LayerNorm(dims)
        self.feed_forward = ResidualFeedForward(dims, config.feedforward_dims, dropout)
        self.output_norm = nn.LayerNorm(dims)

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        previous: Tensor,
        current: Tensor,
        references: Tensor,
        size: tuple[int, int],
        features: Sequence[Tensor],
        views: PillarViews,
    ) -> Tensor:
        """See `TemporalSelfAttention` and `SpatialCrossAttention`, which gets no position."""
        query = self.temporal_attention(query, position, previous, current, references, size)
        query = self.camera_attention(self.temporal_norm(query), features, views)
        return self.output_norm(self.feed_forward(self.camera_norm(query)))


class BevFormerEncoder(nn.Module):
    """A learned query for each BEV cell, its layers, and embeddings of cameras, levels and the ego motion."""

    pillars: Tensor
    cells: Tensor

    def __init__(self, config: BevFormerConfig) -> None:
        super().__init__()
        self.config = config
        dims, grid = config.embed_dims, config.grid
        self.queries = nn.Parameter(torch.randn(grid.rows * grid.columns, dims))
        self.position = LearnedGridPosition(grid.rows, grid.columns, dims)
        self.motion = MotionEmbedding(dims)
        self.camera_embedding = (
            None if config.camera_count is None else nn.Parameter(torch.randn(config.camera_count, dims))
        )
        self.level_embedding = nn.Parameter(torch.randn(config.num_levels, dims))
        self.layers = nn.ModuleList(BevFormerEncoderLayer(config) for _ in range(config.encoder_layers))
        self.pillars: Tensor
        self.cells: Tensor
        self.register_buffer("pillars", bevformer_pillars(grid, config.heights), persistent=False)
        self.register_buffer("cells", _cell_references(grid.rows, grid.columns), persistent=False)

    def forward(
        self,
        features: Sequence[Tensor],
        image_from_working: Tensor,
        camera_mask: Tensor,
        image_size: tuple[int, int],
        motion: Tensor,
        previous: PreviousBev | None,
    ) -> Tensor:
        """The BEV map [B, C, Y, X].

        features: L maps [B, V, C, h_l, w_l] that cover images of `image_size` (height, width) px;
        image_from_working [B, V, 4, 4]: points of the working frame -> (u z, v z, z, 1); camera_mask bool
        [B, V]; motion [B, 18]: see `motion_vector`. Raises ValueError for more cameras than embeddings.
        """
        views = view_pillars(self.pillars, image_from_working, camera_mask, image_size)
        query = self.queries + self.motion(motion).unsqueeze(1)
        tokens = self.run_layers(query, self.position(), self.embedded(features), views, previous)
        grid = self.config.grid
        return tokens.transpose(1, 2).unflatten(2, (grid.rows, grid.columns))

    def embedded(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Camera features with the embeddings of their camera and level added."""
        cameras = features[0].shape[1]
        result = []
        for level, embedding in zip(features, self.level_embedding, strict=True):
            added = embedding.view(1, 1, -1, 1, 1)
            if self.camera_embedding is not None:
                if cameras > len(self.camera_embedding):
                    raise ValueError(
                        f"the frame has {cameras} cameras, this encoder has embeddings for "
                        f"{len(self.camera_embedding)}: leave cameras out, or train one with camera_count null"
                    )
                added = added + self.camera_embedding[:cameras].view(1, cameras, -1, 1, 1)
            result.append(level + added.to(level.dtype))
        return result

    def run_layers(
        self,
        query: Tensor,
        position: Tensor,
        features: Sequence[Tensor],
        views: PillarViews,
        previous: PreviousBev | None,
    ) -> Tensor:
        """All layers: query [B, Q, C] -> [B, Q, C].

        With a previous map every layer looks at it and at the queries that the first layer started from;
        without (or in a sample whose previous map isn't valid) a layer looks twice at its own queries.
        """
        start, size = query, (self.config.grid.rows, self.config.grid.columns)
        references = self.cells.expand(len(query), 2, -1, -1)
        if previous is not None:
            shift = torch.where(previous.valid.unsqueeze(1), previous.shift, 0.0)
            shifts = torch.stack([shift, torch.zeros_like(shift)], 1)  # the current map isn't shifted
            references = references + shifts.unsqueeze(2)
        for module in self.layers:
            layer = cast(BevFormerEncoderLayer, module)
            before, now = query, query
            if previous is not None:
                valid = previous.valid[:, None, None]
                before = torch.where(valid, previous.tokens.to(query.dtype), query)
                now = torch.where(valid, start, query)
            query = layer(query, position, before, now, references, size, features, views)
        return query


def _cell_references(rows: int, columns: int) -> Tensor:
    """(x, y) [1, 1, rows * columns, 2] in 0..1 of the grid: the centres of its cells, row by row."""
    x, y = (torch.arange(columns) + 0.5) / columns, (torch.arange(rows) + 0.5) / rows
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(1, 1, -1, 2)
