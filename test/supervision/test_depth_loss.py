"""Depth targets and losses on cases small enough to work out by hand."""

import math

import pytest
import torch

from dualview.networks.lift_splat import DepthBins
from dualview.supervision.depth_loss import dense_depth_loss, depth_distribution_loss, depth_target

BINS = DepthBins(2.0, 10.0, 2.0)  # [2, 4), [4, 6), [6, 8), [8, 10)


def test_the_nearest_return_of_a_patch_counts():
    depth_map = torch.zeros(1, 4, 8)
    depth_map[0, 0, 0], depth_map[0, 3, 3] = 7.0, 4.5
    assert depth_target(depth_map, 4, BINS).bin.tolist() == [[[1, -1]]]


@pytest.mark.parametrize(
    ("depth", "bin_index"), [(1.9, -1), (0.5, -1), (2.0, 0), (3.99, 0), (9.99, 3), (10.0, -1), (80.0, -1)]
)
def test_borders_of_the_bins(depth, bin_index):
    assert depth_target(torch.full((1, 1), depth), 1, BINS).bin.item() == bin_index


def test_distribution_loss_by_hand():
    probability = torch.tensor([0.7, 0.1, 0.1, 0.1]).view(4, 1, 1).expand(4, 1, 2)
    target = depth_target(torch.tensor([[3.0, 0.0]]), 1, BINS)
    expected = 3.0 * -(math.log(0.7) + 3 * math.log(0.9))
    assert math.isclose(depth_distribution_loss(probability, target).item(), expected, rel_tol=1e-6)


def test_no_returns_give_no_loss():
    probability = torch.full((4, 2, 2), 0.25, requires_grad=True)
    loss = depth_distribution_loss(probability, depth_target(torch.zeros(2, 2), 1, BINS))
    loss.backward()
    assert loss.item() == 0.0 and probability.grad.eq(0).all()


def test_dense_loss_by_hand():
    predictions = [torch.tensor([[5.0, 70.0]]), torch.tensor([[1.0]])]
    depth_maps = [torch.tensor([[4.0, 58.0]]), torch.tensor([[-1.0]])]
    assert math.isclose(
        dense_depth_loss(predictions, depth_maps).item(), 0.2 * (1 + 2) / (2 * 2), rel_tol=1e-6
    )


def test_patches_must_fit():
    with pytest.raises(ValueError, match="can't be cut into patches of 3"):
        depth_target(torch.zeros(4, 4), 3, BINS)
