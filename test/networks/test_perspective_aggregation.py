import pytest
import torch
from rig_example import BATCH, DIMS, anchors, ring_views

from dualview.networks.perspective_aggregation import CameraViews, PerspectiveAggregation, project_to_images


def module(**options) -> PerspectiveAggregation:
    torch.manual_seed(0)
    built = PerspectiveAggregation(DIMS, groups=4, levels=2, **options).eval()
    torch.nn.init.normal_(built.weights.weight, std=0.3)
    return built


def instances(count: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    features, embedding = torch.randn(2, BATCH, count, DIMS, generator=generator)
    return features, anchors(count), embedding


def with_mask(views: CameraViews, mask: list[bool]) -> CameraViews:
    return CameraViews(
        views.features, views.projection, views.image_size, torch.tensor([mask]).expand(BATCH, -1)
    )


@pytest.mark.parametrize("cameras", [1, 3, 6])
def test_any_number_of_cameras(cameras) -> None:
    output = module()(*instances(), ring_views(cameras))
    assert output.shape == (BATCH, 12, 2 * DIMS) and output.isfinite().all()


def test_masked_camera_is_as_if_it_did_not_exist() -> None:
    """Same result as a rig without that camera, whatever nonsense its slot holds."""
    views = ring_views(4)
    broken = [level.clone() for level in views.features]
    for level in broken:
        level[:, 2] = float("nan")
    projection = views.projection.clone()
    projection[:, 2] = float("nan")
    masked = with_mask(CameraViews(broken, projection, views.image_size), [True, True, False, True])
    kept = [0, 1, 3]
    without = CameraViews(
        [level[:, kept] for level in views.features], views.projection[:, kept], views.image_size
    )
    network = module()
    torch.testing.assert_close(
        network(*instances(), masked), network(*instances(), without), atol=1e-6, rtol=0
    )


def test_weights_sum_to_one_over_the_cameras_that_remain() -> None:
    features, _, embedding = instances()
    views = with_mask(ring_views(3), [True, False, True])
    weights = module().attention_weights(features, embedding, views)
    torch.testing.assert_close(weights.sum((2, 3, 4)), torch.ones(BATCH, 12, 4))
    assert not weights[:, :, 1].any()


def test_all_cameras_masked_gives_zeros_and_finite_gradients() -> None:
    network = module(residual="add")
    features, state, embedding = instances()
    features.requires_grad_()
    output = network(features, state, embedding, with_mask(ring_views(3), [False] * 3))
    torch.testing.assert_close(output, features + network.output_projection.bias)
    output.sum().backward()
    assert features.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_points_behind_a_camera_give_nothing() -> None:
    """A camera that looks away from every instance changes nothing but its share of the softmax."""
    views = ring_views(1)
    behind = anchors(12).clone()
    behind[..., 0] = -behind[..., 0].abs() - 10  # camera 0 looks along +x
    _, in_front = project_to_images(behind[..., None, :3], views.projection, views.image_size)
    assert not in_front.any()
    features, _, embedding = instances()
    network = module(residual="add")
    output = network(features, behind, embedding, views)
    torch.testing.assert_close(output, features + network.output_projection.bias)


def test_projection_hits_the_pixel() -> None:
    views = ring_views(1)
    point = torch.tensor([10.0, -2.0, 0.5]).expand(BATCH, 1, 1, 3)  # 10 m ahead, 2 m right, 0.5 m up
    location, in_front = project_to_images(point, views.projection, views.image_size)
    height, width = views.image_size
    expected = torch.tensor([(width / 2 + 40.0 * 2 / 10) / width, (height / 2 - 40.0 * 0.5 / 10) / height])
    torch.testing.assert_close(location[0, 0, 0, 0], expected)
    assert in_front.all()


def test_border_rules_differ_only_in_the_outermost_half_pixel() -> None:
    features, state, embedding = instances(60)
    views = ring_views(3)
    blended, strict = module(), module(border_rule="strict_inside")
    difference = (
        blended(features, state, embedding, views) - strict(features, state, embedding, views)
    ).abs()
    locations, in_front = project_to_images(
        blended.keypoints(state, features), views.projection, views.image_size
    )
    outside = in_front & ((locations <= 0) | (locations >= 1)).any(-1)
    coarse = min(min(level.shape[-2:]) for level in views.features)
    near = outside & ((locations - 0.5).abs() < 0.5 + 0.5 / coarse).all(-1)
    touched = near.any(1).any(-1)  # [B, N]
    assert touched.any() and not touched.all()
    assert not difference[~touched].any()
    assert difference[touched].amax() > 1e-4


def test_point_dropout_keeps_the_mean() -> None:
    network = module(point_dropout=0.15).train()
    features, _, embedding = instances(200)
    weights = network.attention_weights(features, embedding, ring_views(2))
    dropped = (weights == 0).float().mean()
    assert abs(dropped - 0.15) < 0.02
    assert abs(weights.sum((2, 3, 4)).mean() - 1) < 0.02


def test_refuses_what_it_was_not_built_for() -> None:
    with pytest.raises(ValueError, match="camera_count"):
        module(camera_embedding=False)
    fixed = module(camera_embedding=False, camera_count=3)
    assert fixed(*instances(), ring_views(3)).isfinite().all()
    with pytest.raises(ValueError, match="fixed number of cameras"):
        fixed(*instances(), ring_views(2))
    with pytest.raises(ValueError, match="groups"):
        PerspectiveAggregation(DIMS, groups=5)
