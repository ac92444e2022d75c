"""BEV maps of LiDAR and of label maps, through the cameras' BEV encoder."""

import numpy as np
import pytest
import torch

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_branch import BevBranchConfig
from dualview.networks.oracle_branch import STATISTICS, OracleBranch, height_statistics, unit_features

GRID = BevGrid(-4.0, -2.0, 0.5, 16, 8, z_min=-2.0, z_max=2.0)
LAYERS = 4


def test_statistics_of_cells_by_counting() -> None:
    random = np.random.default_rng(0)
    low, high = [-5.0, -3.0, -3.0, 0.0, 0.0], [5.0, 3.0, 3.0, 255.0, 0.5]
    points = torch.from_numpy(random.uniform(low, high, (900, 5))).float()
    found = height_statistics(points, GRID, LAYERS)
    assert found.shape == (STATISTICS + LAYERS, 8, 16)
    for row in range(8):
        for column in range(16):
            x, y = -4.0 + 0.5 * column, -2.0 + 0.5 * row
            inside = (
                (points[:, 0] >= x)
                & (points[:, 0] < x + 0.5)
                & (points[:, 1] >= y)
                & (points[:, 1] < y + 0.5)
            )
            own = points[inside & (points[:, 2] >= -2.0) & (points[:, 2] < 2.0)]
            expected = torch.zeros(STATISTICS + LAYERS)
            if len(own):
                z = own[:, 2]
                expected[:STATISTICS] = torch.tensor(
                    [
                        1.0,
                        np.log1p(len(own)),
                        z.min(),
                        z.max(),
                        z.mean(),
                        z.std(correction=0),
                        own[:, 3].mean() / 255,
                    ]
                )
                for layer in range(LAYERS):
                    expected[STATISTICS + layer] = float(((z >= layer - 2) & (z < layer - 1)).any())
            torch.testing.assert_close(found[:, row, column], expected, atol=1e-5, rtol=1e-5)


def test_no_point_is_an_empty_map() -> None:
    assert not height_statistics(torch.zeros(0, 5), GRID, LAYERS).any()


def test_features_are_of_one_length_and_unknown_cells_stay_zero() -> None:
    torch.manual_seed(0)
    label = torch.randn(1, 9, 8, 16).half()
    label[:, :, 2] = 0
    unit = unit_features(label)
    norm = unit[:, :9].norm(dim=1)
    assert not unit[:, :, 2].any()
    known = norm[:, [r for r in range(8) if r != 2]]
    torch.testing.assert_close(known, torch.full_like(known, 3.0), atol=1e-3, rtol=0)
    torch.testing.assert_close(unit, unit_features(8 * label), atol=1e-2, rtol=0)
    assert torch.equal(unit[:, 9] > 0, label.any(1))


def test_either_or_both_are_read() -> None:
    config = BevBranchConfig(
        grid=GRID, context_channels=8, preprocess_blocks=0, encoder_channels=(8, 8), encoder_strides=(1, 2), encoder_blocks=(1, 1)
    )  # fmt: skip
    clouds = [torch.rand(40, 5) * 2, torch.rand(9, 5)]
    label = torch.randn(2, 5, 8, 16)
    for layers, channels in ((LAYERS, 0), (0, 5), (LAYERS, 5)):
        torch.manual_seed(0)
        branch = OracleBranch(config, 12, layers, channels).eval()
        made = branch(clouds if layers else None, label if channels else None)
        assert made.features.shape == (2, 12, 8, 16) and made.depth_logits is None
        if layers:
            assert not torch.equal(branch(clouds[::-1], label).features, made.features)
            with pytest.raises(ValueError, match=r"give inputs\.points"):
                branch(None, label)
        if channels:
            assert not torch.equal(branch(clouds, label.flip(2)).features, made.features)
            with pytest.raises(ValueError, match=r"give inputs\.label_map"):
                branch(clouds, None)
