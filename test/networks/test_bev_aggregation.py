from dataclasses import replace

import pytest
import torch
from rig_example import BATCH, DIMS, anchors

from dualview.geometry.bev_grid import BevGrid
from dualview.networks.bev_aggregation import BevAggregation, BevView

GRID = BevGrid(-20.0, -12.0, 0.8, 60, 40)


def coordinate_map() -> BevView:
    """A map whose first channel of every group pair is x and the second y of the cell."""
    centers = GRID.cell_centers()  # [Y, X, 2]
    features = centers.permute(2, 0, 1).repeat(DIMS // 2, 1, 1)
    return BevView(features.expand(BATCH, -1, -1, -1), GRID)


def module(**options) -> BevAggregation:
    torch.manual_seed(0)
    return BevAggregation(DIMS, groups=4, **options).eval()


def test_reads_the_map_where_the_instance_is() -> None:
    """On a map of coordinates, uniform weights over keypoints around a centre give the centre."""
    network = module(learned_keypoints=0)
    with torch.no_grad():
        network.output_projection.weight.copy_(torch.eye(DIMS))
    state = torch.zeros(BATCH, 3, 11)
    state[..., :3] = torch.tensor([[3.0, -5.0, 0.4], [-11.0, 7.5, 9.0], [0.3, 0.1, 0.0]])
    state[..., 7] = 1.0
    features = torch.zeros(BATCH, 3, DIMS)
    output = network(features, state, features, coordinate_map())
    expected = state[..., :2].repeat(1, 1, DIMS // 2)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


def test_off_the_map_instances_are_left_alone() -> None:
    state = anchors(10)
    state[:, :4, 0] = 300.0
    features = torch.randn(BATCH, 10, DIMS, generator=torch.Generator().manual_seed(0))
    guarded, plain = module(), module(validity_mask=False)
    for network in (guarded, plain):
        torch.nn.init.constant_(network.output_projection.bias, 0.5)
    result = guarded(features, state, features, coordinate_map())
    assert torch.equal(result[:, :4], features[:, :4])
    without = plain(features, state, features, coordinate_map())
    torch.testing.assert_close(without[:, :4], features[:, :4] + 0.5)
    inside = (state[..., 0].abs() < 15) & (state[..., 1].abs() < 10)
    assert inside.any()
    torch.testing.assert_close(result[inside], without[inside])


def far_and_near() -> torch.Tensor:
    """Anchors [BATCH, 12, 11], 4 m long: 0..3 on the map, 4..7 to 150 m away, 8..11 a third of a cell beyond its edges."""
    state = torch.zeros(BATCH, 12, 11)
    state[..., 3:6] = torch.tensor([4.0, 1.9, 1.6]).log()
    state[..., 7] = 1.0
    state[:, :4, :2] = torch.tensor(
        [[0.0, 0.0], [-12.0, 6.0], [20.0, -9.0], [27.6, 19.0]]
    )  # the last: a corner's part
    state[:, 4:8, :2] = torch.tensor([[150.0, 0.0], [-149.0, 3.0], [0.0, 90.0], [106.0, -106.0]])
    beyond = 0.8 / 3
    state[:, 8:, :2] = torch.tensor(
        [[29.8 + beyond, 0], [-21.8 - beyond, 0], [0, 20.86 + beyond], [0, -12.86 - beyond]]
    )
    return state


ON, OFF = slice(0, 4), slice(4, 12)


def shaken(network: BevAggregation) -> BevAggregation:
    """Every parameter random, so that bias and attention have a say."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return network


def other_maps() -> dict[str, BevView]:
    normal = coordinate_map()
    return {
        "zeros": replace(normal, features=torch.zeros_like(normal.features)),
        "large": replace(normal, features=normal.features * 1e6 - 3e5),
        "not a number": replace(normal, features=torch.full_like(normal.features, float("nan"))),
        "infinite": replace(normal, features=torch.full_like(normal.features, float("inf"))),
    }


@pytest.mark.parametrize("training", [False, True])
def test_off_the_map_instances_get_exactly_nothing_from_any_map(training: bool) -> None:
    network = shaken(module()).train(training)
    state = far_and_near()
    generator = torch.Generator().manual_seed(1)
    features, embedding = torch.randn(2, BATCH, 12, DIMS, generator=generator).unbind()
    normal = network(features, state, embedding, coordinate_map())
    assert torch.equal(normal[:, OFF], features[:, OFF])
    assert (normal[:, ON] - features[:, ON]).abs().amax(-1).min() > 1e-3, "those on the map do read it"
    for name, view in other_maps().items():
        other = network(features, state, embedding, view)
        assert torch.equal(other[:, OFF], normal[:, OFF]), name
        assert not torch.equal(other[:, ON], normal[:, ON]), name


def test_gradients_are_finite_and_those_of_far_instances_are_the_identity() -> None:
    """Whatever the map holds where far instances aren't: their gradient is one, and they teach the parameters nothing."""
    network = shaken(module())
    state = far_and_near()
    for view in (coordinate_map(), other_maps()["not a number"]):
        features = torch.randn(BATCH, 8, DIMS, generator=torch.Generator().manual_seed(2)).requires_grad_()
        anchors = state[:, OFF].clone().requires_grad_()
        bev = replace(view, features=view.features.clone().requires_grad_())
        network.zero_grad()
        network(features, anchors, torch.zeros_like(features), bev).sum().backward()
        assert torch.equal(features.grad, torch.ones_like(features))
        for gradient in (anchors.grad, bev.features.grad, *(p.grad for p in network.parameters())):
            assert gradient is None or not gradient.any(), "zero, so finite"
    network.zero_grad()
    features = torch.randn(BATCH, 12, DIMS, generator=torch.Generator().manual_seed(2)).requires_grad_()
    view = coordinate_map()
    bev = replace(view, features=view.features.clone().requires_grad_())
    network(features, state, torch.zeros_like(features), bev).square().sum().backward()
    assert bev.features.grad.any(), "instances on the map teach it"
    for gradient in (features.grad, bev.features.grad, *(p.grad for p in network.parameters())):
        assert gradient.isfinite().all()


def test_height_of_the_instance_does_not_matter() -> None:
    state = anchors(6)
    features = torch.randn(BATCH, 6, DIMS, generator=torch.Generator().manual_seed(0))
    lifted = state.clone()
    lifted[..., 2] += 7.0
    network = module()
    view = coordinate_map()
    assert torch.equal(network(features, state, features, view), network(features, lifted, features, view))
