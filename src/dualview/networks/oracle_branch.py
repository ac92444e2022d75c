"""A BEV map that isn't seen by cameras: from LiDAR, or from a foundation model's features on the ground, through the BEV
encoder of the cameras' map.

For the oracle experiment of DualViewDistill (arXiv 2510.10287, Table XI): how good would the detector be if its BEV map
held what it is taught?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import POINT_HEIGHTS, BevGrid
from dualview.networks.bev_branch import BevBranchConfig, BevPrediction
from dualview.networks.bev_encoder import BevEncoder

STATISTICS = 7  # of `height_statistics`, beside its layers
_EPS = 1e-6


class OracleBranch(nn.Module):
    """Clouds and label maps -> BEV map of `out_channels`, by the encoder that `config` describes.

    height_layers: of the clouds' statistics, 0 = clouds aren't read. map_channels: of the label maps, 0 = they aren't.
    """

    def __init__(
        self, config: BevBranchConfig, out_channels: int, height_layers: int, map_channels: int
    ) -> None:
        super().__init__()
        self.grid = replace(config.grid, z_min=POINT_HEIGHTS[0], z_max=POINT_HEIGHTS[1])
        self.height_layers, self.map_channels = height_layers, map_channels
        geometry = STATISTICS + height_layers if height_layers else 0
        features = map_channels + 1 if map_channels else 0  # one more says which cells are known
        self.project = nn.Conv2d(geometry + features, config.context_channels, 1)
        self.encoder = BevEncoder(
            config.context_channels,
            out_channels,
            config.encoder_channels,
            config.encoder_strides,
            config.encoder_blocks,
            config.preprocess_blocks,
            config.encoder_style == "res2",
        )

    def forward(self, clouds: Sequence[Tensor] | None, label_map: Tensor | None) -> BevPrediction:
        """clouds: B of [P, 5] (m, the grid's frame; intensity 0..255; age s). label_map [B, map_channels, Y, X], zero where
        nothing is known. Raises ValueError if what this branch reads isn't given.
        """
        parts = []
        if self.height_layers:
            if clouds is None:
                raise ValueError("this oracle reads LiDAR: give inputs.points")
            parts.append(torch.stack([height_statistics(c, self.grid, self.height_layers) for c in clouds]))
        if self.map_channels:
            if label_map is None:
                raise ValueError("this oracle reads label maps: give inputs.label_map")
            parts.append(unit_features(label_map))
        return BevPrediction(self.encoder(self.project(torch.cat(parts, 1))), None)


def height_statistics(points: Tensor, grid: BevGrid, layers: int) -> Tensor:
    """What the returns of a cloud [P, >= 4] (x, y, z m, intensity 0..255) in each cell say: float32 [7 + layers, Y, X].

    Occupied, ln(1 + number), lowest, highest and mean z, its standard deviation (m), mean intensity (0..1); then for each of
    `layers` of the grid's height whether it holds a return. All zero in empty cells.
    """
    count = grid.rows * grid.columns
    low = points.new_tensor([grid.x_min, grid.y_min, grid.z_min])
    edge = points.new_tensor([grid.resolution, grid.resolution, (grid.z_max - grid.z_min) / layers])
    index = ((points[:, :3] - low) / edge).floor().long()
    size = torch.tensor([grid.columns, grid.rows, layers], device=points.device)
    inside = ((index >= 0) & (index < size)).all(1)
    x, y, layer = index[inside].unbind(1)
    cell, z, intensity = y * grid.columns + x, points[inside, 2], points[inside, 3] / 255
    number = torch.bincount(cell, minlength=count).float()
    shared = number.clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return points.new_zeros(count).index_add(0, cell, values) / shared

    def extreme(kind: str) -> Tensor:
        return points.new_zeros(count).scatter_reduce(0, cell, z, kind, include_self=False)

    height = mean(z)
    spread = mean((z - height[cell]) ** 2).sqrt()
    occupied = points.new_zeros(layers * count)
    occupied[layer * count + cell] = 1.0
    rows = [
        (number > 0).float(),
        number.log1p(),
        extreme("amin"),
        extreme("amax"),
        height,
        spread,
        mean(intensity),
    ]
    return torch.cat([torch.stack(rows), occupied.view(layers, count)]).view(-1, grid.rows, grid.columns)


def unit_features(label_map: Tensor) -> Tensor:
    """Label maps [B, C, Y, X] with vectors of one length, sqrt(C), and one more channel, 1 where something is known:
    float32 [B, C + 1, Y, X]. The lengths of teachers' features differ widely, and say nothing to the cosine loss.
    """
    features = label_map.float()
    norm = features.norm(dim=1, keepdim=True)
    scaled = features / norm.clamp(min=_EPS) * features.shape[1] ** 0.5
    return torch.cat([scaled, (norm > 0).float()], 1)
