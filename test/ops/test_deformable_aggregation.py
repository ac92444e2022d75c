import pytest
import torch
from torch import Tensor

from dualview.ops.deformable_aggregation import (
    OUTSIDE,
    aggregate_dense,
    aggregate_visible,
    deformable_aggregation,
)

FORMS = pytest.mark.parametrize("form", [aggregate_dense, aggregate_visible])


def example(
    seed: int,
    dtype: torch.dtype = torch.float64,
    batch=2,
    cameras=3,
    instances=5,
    points=4,
    channels=6,
    groups=3,
):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(5, 7), (3, 4), (1, 2)]
    features = [
        torch.randn(batch, cameras, channels, *size, generator=generator, dtype=dtype) for size in sizes
    ]
    locations = torch.rand(batch, cameras, instances, points, 2, generator=generator, dtype=dtype) * 1.8 - 0.4
    weights = torch.rand(
        batch, instances, cameras, len(sizes), points, groups, generator=generator, dtype=dtype
    )
    return features, locations, weights


def by_loops(features: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """The definition, number by number."""
    batch, instances, cameras, levels, points, groups = weights.shape
    channels = features[0].shape[2]
    total = torch.zeros(batch, instances, channels, dtype=locations.dtype)
    for b, n, v, level, k in torch.cartesian_prod(
        *(torch.arange(s) for s in (batch, instances, cameras, levels, points))
    ):
        image = features[level][b, v]
        height, width = image.shape[1:]
        x, y = locations[b, v, n, k, 0] * width - 0.5, locations[b, v, n, k, 1] * height - 0.5
        left, top = int(torch.floor(x)), int(torch.floor(y))
        value = torch.zeros(channels, dtype=locations.dtype)
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            if 0 <= column < width and 0 <= row < height:
                value += image[:, row, column] * (1 - (x - column).abs()) * (1 - (y - row).abs())
        total[b, n] += value * weights[b, n, v, level, k].repeat_interleave(channels // groups)
    return total


@FORMS
def test_is_the_definition(form) -> None:
    features, locations, weights = example(0)
    torch.testing.assert_close(
        form(features, locations, weights), by_loops(features, locations, weights), atol=1e-12, rtol=0
    )


def test_forms_agree_and_dispatch() -> None:
    arguments = example(1, torch.float32, instances=50, points=13)
    dense = aggregate_dense(*arguments)
    torch.testing.assert_close(aggregate_visible(*arguments), dense, atol=1e-5, rtol=0)
    torch.testing.assert_close(deformable_aggregation(*arguments), dense, atol=1e-5, rtol=0)


@FORMS
def test_gradients(form) -> None:
    features, locations, weights = example(2, batch=1, cameras=2, instances=2, points=2, channels=2, groups=2)
    inputs = [*features, locations, weights]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *x: form(x[:3], x[3], x[4]), inputs, eps=1e-6, atol=1e-7)


@FORMS
def test_bfloat16_features_keep_float32_locations(form) -> None:
    features, locations, weights = example(3, torch.float32, instances=40)
    exact = form(features, locations, weights)
    rounded = form([level.bfloat16() for level in features], locations, weights.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.02 * exact.abs().max()


@FORMS
def test_points_outside_touch_nothing(form) -> None:
    features, locations, weights = example(4)
    broken = [level.clone().fill_(float("nan")) for level in features]
    result = form(broken, torch.full_like(locations, OUTSIDE), weights)
    assert torch.equal(result, torch.zeros_like(result))


@FORMS
def test_half_pixel_band_is_kept_on_every_level(form) -> None:
    """A point just outside the image still blends with the border pixel; on coarse levels that band is wide."""
    features = [torch.ones(1, 1, 1, size, size, dtype=torch.float64) for size in (8, 2)]
    locations = torch.full((1, 1, 1, 1, 2), 0.5, dtype=torch.float64)
    locations[..., 0] = -0.2
    weights = torch.ones(1, 1, 1, 2, 1, 1, dtype=torch.float64)
    expected = 1 - (0.2 * 2 + 0.5)  # only the 2 x 2 level: column -0.9 lies 0.1 inside the band
    assert form(features, locations, weights).item() == pytest.approx(expected, abs=1e-12)


def test_wrong_shapes_are_named() -> None:
    features, locations, weights = example(5)
    with pytest.raises(ValueError, match=r"weights must be \[B, N, V, L, K, G\]"):
        deformable_aggregation(features, locations, weights[:, :-1])
    with pytest.raises(ValueError, match="feature maps must be"):
        deformable_aggregation([level[:, :1] for level in features], locations, weights)
