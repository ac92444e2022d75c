"""Multi-scale deformable attention against its definition, number by number."""

import pytest
import torch
from torch import Tensor

from dualview.ops.multi_scale_deformable_attention import multi_scale_deformable_attention


def example(seed: int, dtype: torch.dtype = torch.float64, batch=2, queries=5, heads=3, points=4, channels=6):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(5, 7), (3, 4), (1, 2)]
    values = [torch.randn(batch, channels, *size, generator=generator, dtype=dtype) for size in sizes]
    shape = (batch, queries, heads, len(sizes), points)
    locations = torch.rand(*shape, 2, generator=generator, dtype=dtype) * 1.8 - 0.4
    return values, locations, torch.randn(*shape, generator=generator, dtype=dtype)


def by_loops(values: list[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    batch, queries, heads = weights.shape[:3]
    width = values[0].shape[1] // heads
    total = torch.zeros(batch, queries, heads * width, dtype=locations.dtype)
    for m, q, h, level, p in torch.cartesian_prod(*(torch.arange(s) for s in weights.shape)):
        own = slice(int(h) * width, (int(h) + 1) * width)
        image = values[level][m, own]
        rows, columns = image.shape[1:]
        x, y = locations[m, q, h, level, p, 0] * columns - 0.5, locations[m, q, h, level, p, 1] * rows - 0.5
        left, top = int(torch.floor(x)), int(torch.floor(y))
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            if 0 <= column < columns and 0 <= row < rows:
                share = (1 - (x - column).abs()) * (1 - (y - row).abs())
                total[m, q, own] += image[:, row, column] * share * weights[m, q, h, level, p]
    return total


def test_is_the_definition() -> None:
    arguments = example(0)
    found = multi_scale_deformable_attention(*arguments)
    torch.testing.assert_close(found, by_loops(*arguments), atol=1e-12, rtol=0)


def test_cell_centres_are_read_exactly() -> None:
    """A query at the centre of cell (column 2, row 1), weight one: that cell."""
    value = torch.randn(1, 2, 3, 4)
    locations = torch.tensor([2.5 / 4, 1.5 / 3]).expand(1, 1, 1, 1, 1, 2)
    found = multi_scale_deformable_attention([value], locations, torch.ones(1, 1, 1, 1, 1))
    torch.testing.assert_close(found[0, 0], value[0, :, 1, 2])


def test_gradients() -> None:
    values, locations, weights = example(1, batch=1, queries=2, heads=2, points=2, channels=4)
    inputs = [*values, locations, weights]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *x: multi_scale_deformable_attention(x[:3], x[3], x[4]), inputs, eps=1e-6, atol=1e-7
    )


def test_bfloat16_values_keep_float32_locations() -> None:
    values, locations, weights = example(2, torch.float32, queries=40)
    exact = multi_scale_deformable_attention(values, locations, weights)
    rounded = multi_scale_deformable_attention([v.bfloat16() for v in values], locations, weights.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_shapes_that_do_not_fit_are_named() -> None:
    values, locations, weights = example(3)
    with pytest.raises(ValueError, match=r"locations must be \[M, Q, H, L, P, 2\]"):
        multi_scale_deformable_attention(values, locations[0], weights)
    with pytest.raises(ValueError, match="weights must be"):
        multi_scale_deformable_attention(values, locations, weights[..., :-1])
    with pytest.raises(ValueError, match="3 levels but there are 2 maps"):
        multi_scale_deformable_attention(values[:2], locations, weights)
    with pytest.raises(ValueError, match="a multiple of the 3 heads"):
        multi_scale_deformable_attention([v[:, :4] for v in values], locations, weights)
