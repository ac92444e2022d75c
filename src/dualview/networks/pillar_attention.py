"""Bird's-eye-view queries read the images where their pillars stand (BEVFormer: Li et al. 2022, section 3.3).

A cell of the BEV grid is a pillar; points at several heights of it are projected into every camera. A query reads only
the cameras that see some of its points, at learned offsets from them, and takes the mean over these cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualview.geometry.bev_grid import BevGrid
from dualview.ops.multi_scale_deformable_attention import multi_scale_deformable_attention

_NEAREST = 1e-5  # m along the optical axis, and fraction of the image at its border


@dataclass(frozen=True)
class PillarViews:
    """Where cameras see the points of pillars.

    locations [B, N, Q, Z, 2]: (x, y) in 0..1 of the image, (0, 0) its upper left corner, of Q = Y X cells at Z heights,
    the lowest first; meaningless where `visible` bool [B, N, Q, Z] is False.
    """

    locations: Tensor
    visible: Tensor


def pillar_points(grid: BevGrid, heights: int) -> Tensor:
    """Points [Y, X, heights, 3] (m) at the centres of `heights` equal layers between the grid's z_min and z_max."""
    z = grid.z_min + (torch.arange(heights) + 0.5) * ((grid.z_max - grid.z_min) / heights)
    cells = grid.cell_centers().unsqueeze(2).expand(-1, -1, heights, -1)
    return torch.cat([cells, z.view(1, 1, -1, 1).expand(grid.rows, grid.columns, -1, 1)], -1)


def project_pillars(
    grid: BevGrid,
    heights: int,
    image_from_working: Tensor,
    camera_mask: Tensor | None,
    image_size: tuple[int, int],
) -> PillarViews:
    """image_from_working [B, N, 4, 4], camera_mask bool [B, N] (False: sees nothing; None: all are used), image_size
    (height, width) px.
    """
    matrix = image_from_working.double()
    points = pillar_points(grid, heights).to(matrix).view(-1, 3)  # [Q Z, 3]
    projected = points @ matrix[..., :3, :3].mT + matrix[..., None, :3, 3]  # [B, N, Q Z, 3]
    depth = projected[..., 2]
    size = matrix.new_tensor([image_size[1], image_size[0]])
    locations = projected[..., :2] / depth.clamp(min=_NEAREST).unsqueeze(-1) / size
    visible = (depth > _NEAREST) & ((locations > _NEAREST) & (locations < 1 - _NEAREST)).all(-1)
    if camera_mask is not None:
        visible = visible & camera_mask.unsqueeze(-1)
    shape = (-1, heights)
    # Far outside is outside: behind a camera the quotient is huge, and offsets are a few pixels.
    return PillarViews(locations.clamp(-10.0, 10.0).float().unflatten(2, shape), visible.unflatten(2, shape))


class PillarAttention(nn.Module):
    """Queries [B, Q, channels] gather from camera maps; `points` of each head are dealt out over the heights in turn."""

    def __init__(self, channels: int, heads: int = 8, points: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels can't be cut into {heads} heads; choose a divisor")
        self.heads, self.points = heads, points
        self.offsets = nn.Linear(channels, heads * points * 2)
        self.weights = nn.Linear(channels, heads * points)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """At the start each head looks in its own direction, its points ever further, all with the same weight."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1).view(1, -1, 1)
        nn.init.zeros_(self.offsets.weight)
        with torch.no_grad():
            self.offsets.bias.copy_((direction[:, None] * steps).flatten())
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, position: Tensor, features: Tensor, views: PillarViews) -> Tensor:
        """query [B, Q, C] plus what it reads; position [Q, C] is added only to ask; features [B, N, C, h, w].

        Sampling is bilinear (align_corners False, zero outside) and made in float32. Gradients flow to query, position
        and features.
        """
        asked = query + position
        heads, points = self.heads, self.points
        offsets = self.offsets(asked).float().unflatten(-1, (heads, points, 2))  # pixels of the feature map
        weights = self.weights(asked).float().unflatten(-1, (heads, points)).softmax(-1)
        read, cameras = self._read(features, offsets, weights, views)
        mean = read / cameras.clamp(min=1).unsqueeze(-1)
        return query + self.dropout(self.output(mean.to(query.dtype)))

    def _read(
        self, features: Tensor, offsets: Tensor, weights: Tensor, views: PillarViews
    ) -> tuple[Tensor, Tensor]:
        """Sums [B, Q, C] over the cameras that see a query, and their number [B, Q]."""
        batch, cameras, channels, height, width = features.shape
        values = self.value(features.flatten(3).transpose(2, 3)).float()  # [B, N, h w, C]
        values = values.transpose(2, 3).unflatten(-1, (height, width)).flatten(0, 1)  # [B N, C, h, w]
        seen = views.visible.any(-1)  # [B, N, Q]
        # All (camera, query) pairs at once, sorted by camera: the host learns their number once a call.
        view, query = seen.flatten(0, 1).nonzero(as_tuple=True)
        counts = seen.flatten(0, 1).sum(1).tolist()
        # The height of the pillar that each of a head's points starts from: all in turn.
        start = torch.arange(self.points, device=features.device) % views.visible.shape[-1]
        size = offsets.new_tensor([width, height])
        rows = [values.new_zeros(0, channels)]
        for index, (number, chosen) in enumerate(zip(counts, query.split(counts), strict=True)):
            if not number:
                continue
            sample, camera = divmod(index, cameras)
            places = views.locations[sample, camera, chosen][:, start]  # [K, points, 2]
            places = places.unsqueeze(1) + offsets[sample, chosen] / size  # [K, heads, points, 2]
            found = multi_scale_deformable_attention(
                [values[index, None]], places[None, :, :, None], weights[sample, chosen][None, :, :, None]
            )
            rows.append(found[0])
        queries = offsets.shape[1]
        read = values.new_zeros(batch * queries, channels)
        read = read.index_add(0, view // cameras * queries + query, torch.cat(rows))
        return read.unflatten(0, (batch, queries)), seen.sum(1)
