"""Perspective refinement: the encoded BEV map looks at the images once more (BEVNeXt: Li et al. 2024, section 3.3).

The lift scatters features by depth, which is what long baselines and long ranges are poor at; here every cell asks the
images itself, which carry the depth distribution as an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.pillar_attention import PillarAttention, PillarViews


@dataclass(frozen=True)
class PerspectiveRefinementConfig:
    """heads, and points a head, of the attention; heights: points of each cell's pillar; dropout of attention and
    feed-forward part.
    """

    heads: int = 8
    points: int = 8
    heights: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heights < 1 or self.points % self.heights:
            raise ValueError(
                f"refinement.points {self.points} must be a multiple of refinement.heights {self.heights}: "
                "every height gets as many"
            )


class DepthEmbedding(nn.Module):
    """Context features with the depth distribution beside them: context + embedding(depth), depth without gradient."""

    def __init__(self, bins: int, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Conv2d(bins, bins, 1),
            nn.BatchNorm2d(bins),
            nn.ReLU(inplace=True),
            nn.Conv2d(bins, channels, 1),
        )

    def forward(self, context: Tensor, depth: Tensor) -> Tensor:
        """context [M, C, H, W], depth [M, D, H, W] (probabilities) -> [M, C, H, W]."""
        return context + self.embed(depth.detach())


class PerspectiveRefinement(nn.Module):
    """One layer: cells attend to the images, norm, feed-forward, norm. [B, bev_channels, Y, X] -> [B, channels, Y, X].

    channels: of the context features; bins: of the depth distributions.
    """

    def __init__(
        self,
        config: PerspectiveRefinementConfig,
        grid: BevGrid,
        bev_channels: int,
        channels: int,
        bins: int,
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"{channels} channels can't hold a position in x and y: use an even number")
        self.rows, self.columns = grid.rows, grid.columns
        self.depth_embedding = DepthEmbedding(bins, channels)
        self.adapt = nn.Sequential(
            nn.Conv2d(bev_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.query = nn.Parameter(torch.empty(grid.rows * grid.columns, channels))
        self.row_position = nn.Parameter(torch.empty(grid.rows, channels // 2))
        self.column_position = nn.Parameter(torch.empty(grid.columns, channels // 2))
        self.attention = PillarAttention(channels, config.heads, config.points, config.dropout)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(4 * channels, channels),
            nn.Dropout(config.dropout),
        )
        self.norm2 = nn.LayerNorm(channels)
        # Small, so that at the start the map itself asks.
        for parameter in (self.query, self.row_position, self.column_position):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, bev: Tensor, context: Tensor, depth: Tensor, views: PillarViews) -> Tensor:
        """bev [B, bev_channels, Y, X]; context [B, N, C, h, w] and depth [B, N, D, h, w] (probabilities) of the lift;
        views from `project_pillars` on the same grid.
        """
        features = self.depth_embedding(context.flatten(0, 1), depth.flatten(0, 1))
        cells = self.adapt(bev).flatten(2).transpose(1, 2)  # [B, Y X, C]
        query = self.query.to(cells.dtype) + cells
        query = self.norm1(
            self.attention(query, self.position(), features.unflatten(0, context.shape[:2]), views)
        )
        query = self.norm2(query + self.feed_forward(query))
        return query.transpose(1, 2).unflatten(2, (self.rows, self.columns))

    def position(self) -> Tensor:
        """Learned position [Y X, C] of each cell: its column's half, then its row's half."""
        column = self.column_position.expand(self.rows, -1, -1)
        row = self.row_position[:, None].expand(-1, self.columns, -1)
        return torch.cat([column, row], -1).flatten(0, 1)
