"""Feature pyramid and dense depth."""

import math

import torch

from dualview.networks.dense_depth import DenseDepth
from dualview.networks.feature_pyramid import FeaturePyramid


def test_odd_sizes_and_top_down_flow():
    torch.manual_seed(0)
    pyramid = FeaturePyramid((4, 6, 8), 5)
    features = [
        torch.randn(1, 4, 9, 15),
        torch.randn(1, 6, 5, 8),
        torch.randn(1, 8, 3, 4, requires_grad=True),
    ]
    levels = pyramid(features)
    assert [tuple(level.shape) for level in levels] == [(1, 5, 9, 15), (1, 5, 5, 8), (1, 5, 3, 4)]
    levels[0].sum().backward()
    assert features[2].grad.abs().sum() > 0  # the finest level sees the coarsest


def test_depth_scales_with_focal_length():
    dense = DenseDepth(4, levels=2)
    for layer in dense.layers:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, math.log(7.0))
    features = [torch.randn(1, 2, 4, 3, 5), torch.randn(1, 2, 4, 2, 3), torch.randn(1, 2, 4, 1, 2)]
    plain, scaled = dense(features), dense(features, torch.tensor([[100.0, 250.0]]))
    assert len(plain) == 2 and plain[0].shape == (1, 2, 3, 5)
    assert torch.allclose(plain[0], torch.tensor(7.0))
    assert torch.allclose(scaled[1][0, 1], torch.tensor(17.5))
