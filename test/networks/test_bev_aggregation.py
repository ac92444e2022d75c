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


def test_height_of_the_instance_does_not_matter() -> None:
    state = anchors(6)
    features = torch.randn(BATCH, 6, DIMS, generator=torch.Generator().manual_seed(0))
    lifted = state.clone()
    lifted[..., 2] += 7.0
    network = module()
    view = coordinate_map()
    assert torch.equal(network(features, state, features, view), network(features, lifted, features, view))
