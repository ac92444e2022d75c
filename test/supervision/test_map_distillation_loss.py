"""The distillation of label maps: DualViewDistill's masked cosine loss."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from dualview.supervision.map_distillation import (
    MapDistillationSettings,
    cosine_distance,
    map_distillation_loss,
)


def identity(cells: torch.Tensor) -> torch.Tensor:
    return cells


def test_the_distance_is_one_minus_the_cosine() -> None:
    a = torch.tensor([[3.0, 0.0], [3.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 5.0], [1.0, 0.0], [-4.0, 0.0]])
    expected = torch.tensor([0.0, 1.0, 1 - 0.5**0.5, 2.0])
    torch.testing.assert_close(cosine_distance(a, b), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(cosine_distance(100 * a, b), cosine_distance(a, 0.01 * b), atol=1e-4, rtol=0)


def test_the_loss_is_the_mean_over_labelled_cells() -> None:
    """Against a loop over the cells, in the paper's words."""
    torch.manual_seed(0)
    features, mask = torch.randn(2, 5, 4, 3), torch.rand(2, 4, 3) < 0.4
    head = nn.Linear(5, 7)
    label = torch.randn(2, 7, 4, 3)
    target = label.movedim(1, -1)[mask]
    total = torch.zeros(())
    for b, y, x in mask.nonzero().tolist():
        predicted = head.weight @ features[b, :, y, x] + head.bias
        own = label[b, :, y, x]
        total += 1 - predicted @ own / (predicted.norm() * own.norm() + 1e-6)
    expected = total / mask.sum()
    loss = map_distillation_loss(features, head, target, mask)
    torch.testing.assert_close(loss, expected)
    as_convolution = functional.conv2d(features, head.weight[:, :, None, None], head.bias)
    similarity = functional.cosine_similarity(as_convolution, label, dim=1)
    torch.testing.assert_close(loss, (1 - similarity)[mask].mean(), atol=1e-5, rtol=1e-5)
    other = torch.where(mask[:, None], features, 1e3)
    torch.testing.assert_close(map_distillation_loss(other, head, target, mask), loss)


def test_gradients() -> None:
    torch.manual_seed(1)
    features = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 3, 3) < 0.5
    target = torch.randn(int(mask.sum()), 6, dtype=torch.float64, requires_grad=True)

    def loss(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return map_distillation_loss(features, lambda cells: cells @ weight.T, target, mask)

    assert torch.autograd.gradcheck(loss, (features, weight))
    loss(features, weight).backward()
    assert features.grad is not None and target.grad is None
    touched = features.grad.abs().sum(1) > 0
    assert torch.equal(touched, mask)


def test_nothing_labelled_costs_nothing() -> None:
    """Also where the map isn't finite; every parameter still has a gradient, as several processes need."""
    features = torch.full((1, 4, 3, 3), torch.nan, requires_grad=True)
    head = nn.Linear(4, 6)
    loss = map_distillation_loss(features, head, torch.zeros(0, 6), torch.zeros(1, 3, 3, dtype=torch.bool))
    assert loss == 0.0
    loss.backward()
    assert features.grad is not None and not features.grad.any()
    assert head.weight.grad is not None and not head.weight.grad.any()


def test_refusals() -> None:
    mask = torch.ones(1, 2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="3 labels for 4 labelled cells"):
        map_distillation_loss(torch.zeros(1, 5, 2, 2), identity, torch.zeros(3, 5), mask)
    with pytest.raises(ValueError, match="weight is -1"):
        MapDistillationSettings("folder", -1.0)
    assert MapDistillationSettings("folder").weight == 7.0
