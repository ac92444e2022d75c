"""Pillars that look at cameras: the attention written out, masks, order of cameras, gradients."""

import pytest
import torch
from rig_example import BATCH, DIMS, IMAGE_SIZE, ring_views

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.perspective_refinement import PerspectiveRefinement, PerspectiveRefinementConfig
from dualview.networks.pillar_attention import PillarAttention, pillar_points, project_pillars

GRID = BevGrid.centered(12.0, 4.0, z_min=-2.0, z_max=2.0)
CELLS = GRID.rows * GRID.columns


def rig(cameras: int = 3):
    """Projections [B, N, 4, 4] and features [B, N, C, h, w]."""
    views = ring_views(cameras)
    return views.projection, views.features[0]


def attention(points: int = 4) -> PillarAttention:
    torch.manual_seed(0)
    made = PillarAttention(DIMS, heads=2, points=points).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return made


def queries() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(BATCH, CELLS, DIMS, generator=generator),
        torch.randn(CELLS, DIMS, generator=generator),
    )


def bilinear(feature: torch.Tensor, x: float, y: float) -> torch.Tensor:
    """feature [C, h, w] at (x, y) in cells from the first one's centre; zero outside."""
    height, width = feature.shape[-2:]
    total = torch.zeros(feature.shape[0], dtype=feature.dtype)
    for row in (int(y // 1), int(y // 1) + 1):
        for column in (int(x // 1), int(x // 1) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * feature[:, row, column]
    return total


def test_pillar_points_lie_in_layers() -> None:
    points = pillar_points(GRID, 4)
    assert points.shape == (6, 6, 4, 3)
    assert points[0, 0].tolist() == [[-10.0, -10.0, z] for z in (-1.5, -0.5, 0.5, 1.5)]
    assert points[2, 5, 0].tolist() == [10.0, -2.0, -1.5]


def test_it_is_the_attention_written_out() -> None:
    layer, (query, position) = attention(), queries()
    projection, features = rig()
    with torch.no_grad():
        found = layer(query, position, features, project_pillars(GRID, 2, projection, None, IMAGE_SIZE))
        asked = query + position
        offsets = layer.offsets(asked).view(BATCH, CELLS, 2, 4, 2)
        weights = layer.weights(asked).view(BATCH, CELLS, 2, 4).softmax(-1)
        height, width = features.shape[-2:]
        points = pillar_points(GRID, 2).view(CELLS, 2, 3)
        for sample, cell in ((0, 3), (0, 17), (1, 0), (1, 22), (1, 35)):
            total, seeing = torch.zeros(DIMS), 0
            for camera in range(features.shape[1]):
                matrix = projection[sample, camera]
                pixels = points[cell] @ matrix[:3, :3].T + matrix[:3, 3]
                depth = pixels[:, 2]
                places = pixels[:, :2] / depth.clamp(min=1e-5)[:, None] / torch.tensor([80.0, 48.0])
                if not ((depth > 1e-5) & ((places > 1e-5) & (places < 1 - 1e-5)).all(-1)).any():
                    continue
                seeing += 1
                value = (features[sample, camera].flatten(1).T @ layer.value.weight.T + layer.value.bias).T
                value = value.view(2, DIMS // 2, height, width)
                for head in range(2):
                    for point in range(4):
                        x, y = (
                            places[point % 2] * torch.tensor([width, height])
                            + offsets[sample, cell, head, point]
                        )
                        read = bilinear(value[head], float(x) - 0.5, float(y) - 0.5)
                        total[head * 8 : head * 8 + 8] += weights[sample, cell, head, point] * read
            assert seeing or cell != 17
            expected = query[sample, cell] + layer.output(total / max(seeing, 1))
            assert torch.allclose(found[sample, cell], expected, atol=1e-4)


def test_a_masked_camera_is_not_there_and_order_does_not_matter() -> None:
    layer, (query, position) = attention(), queries()
    projection, features = rig(4)
    mask = torch.tensor([[True, False, True, True]] * BATCH)
    noisy, moved = features.clone(), projection.clone()
    noisy[:, 1] = 1e3
    moved[:, 1] = torch.eye(4)
    kept = [3, 0, 2]
    with torch.no_grad():
        masked = layer(query, position, features, project_pillars(GRID, 2, projection, mask, IMAGE_SIZE))
        broken = layer(query, position, noisy, project_pillars(GRID, 2, moved, mask, IMAGE_SIZE))
        without = layer(
            query,
            position,
            features[:, kept],
            project_pillars(GRID, 2, projection[:, kept], None, IMAGE_SIZE),
        )
        blind = layer(
            query,
            position,
            features,
            project_pillars(GRID, 2, projection, torch.zeros_like(mask), IMAGE_SIZE),
        )
    assert torch.equal(masked, broken)
    assert torch.allclose(masked, without, atol=1e-5)
    assert torch.allclose(blind, query + layer.output.bias, atol=1e-6)


def refinement() -> PerspectiveRefinement:
    torch.manual_seed(0)
    config = PerspectiveRefinementConfig(heads=2, points=4, heights=2)
    return PerspectiveRefinement(config, GRID, bev_channels=12, channels=DIMS, bins=5)


def test_everything_learns_but_the_depth_is_left_alone() -> None:
    network = refinement()
    projection, features = rig()
    features = features.clone().requires_grad_()
    depth = torch.rand(BATCH, 3, 5, *features.shape[-2:]).softmax(2).requires_grad_()
    bev = torch.randn(BATCH, 12, 6, 6, requires_grad=True)
    refined = network(bev, features, depth, project_pillars(GRID, 2, projection, None, IMAGE_SIZE))
    assert refined.shape == (BATCH, DIMS, 6, 6)
    (refined * torch.randn(refined.shape)).sum().backward()
    assert depth.grad is None and bev.grad.abs().max() > 0 and features.grad.abs().max() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_rows_and_columns_are_not_mixed_up() -> None:
    """The map is [Y, X] like every other: a changed cell changes itself and its neighbours alone."""
    network = refinement().eval()
    projection, features = rig()
    depth = torch.rand(BATCH, 3, 5, *features.shape[-2:]).softmax(2)
    views = project_pillars(GRID, 2, projection, None, IMAGE_SIZE)
    bev = torch.randn(BATCH, 12, 6, 6)
    changed = bev.clone()
    changed[:, :, 1, 4] += 1.0
    with torch.no_grad():
        difference = (network(changed, features, depth, views) - network(bev, features, depth, views)).abs()
    touched = difference.amax((0, 1)) > 1e-6
    assert touched[0:3, 3:6].any() and not touched[3:].any() and not touched[:, :3].any()
    position = network.position().unflatten(0, (6, 6))
    assert torch.equal(position[2, 5, :8], network.column_position[5])
    assert torch.equal(position[2, 5, 8:], network.row_position[2])


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of refinement\.heights"):
        PerspectiveRefinementConfig(points=4, heights=8)
    with pytest.raises(ValueError, match="choose a divisor"):
        PillarAttention(10, heads=4)
