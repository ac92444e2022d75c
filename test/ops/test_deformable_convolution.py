"""Deformable convolution: an ordinary convolution where offsets are zero, and the definition elsewhere."""

import pytest
import torch
from torch.nn import functional

from dualview.ops.deformable_convolution import deformable_convolution


def tensors(groups=2, kernel=3, stride=1, padding=1, dilation=1):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(2, 4, 6, 7, generator=generator, dtype=torch.float64)
    weight = torch.randn(8, 4 // groups, kernel, kernel, generator=generator, dtype=torch.float64)
    plain = functional.conv2d(features, weight, None, stride, padding, dilation, groups)
    offsets = torch.zeros(2, 2 * kernel * kernel, *plain.shape[-2:], dtype=torch.float64)
    return features, weight, offsets, plain


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups": 1},
        {"groups": 4, "stride": 2},
        {"dilation": 2, "padding": 2},
        {"kernel": 1, "padding": 0},
    ],
)
def test_zero_offsets_are_an_ordinary_convolution(options):
    features, weight, offsets, plain = tensors(**options)
    options = {"groups": 2, "padding": 1} | {k: v for k, v in options.items() if k != "kernel"}
    assert torch.allclose(deformable_convolution(features, offsets, weight, **options), plain, atol=1e-12)


def test_whole_offsets_shift_the_image():
    """All taps moved by (dy, dx) = (1, -2): the same as convolving the image that is moved the other way."""
    features, weight, offsets, _ = tensors()
    offsets[:, 0::2], offsets[:, 1::2] = 1.0, -2.0
    moved = functional.pad(features, (3, 1, 1, 2))  # margin 1 for the kernel; 1 down and 2 left
    expected = functional.conv2d(moved, weight, groups=2)[..., 1:7, :7]
    assert torch.allclose(
        deformable_convolution(features, offsets, weight, padding=1, groups=2), expected, atol=1e-12
    )


def test_gradients():
    features, weight, offsets, _ = tensors()
    features, weight = features[:1, :, :3, :4].clone(), weight[:2]
    offsets = (
        torch.rand(1, 18, 3, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.8 + 0.1
    )
    bias = torch.zeros(2, dtype=torch.float64)
    arguments = tuple(t.requires_grad_() for t in (features, offsets, weight, bias))
    assert torch.autograd.gradcheck(
        lambda f, o, w, b: deformable_convolution(f, o, w, b, padding=1, groups=2), arguments
    )


def test_shapes_that_do_not_fit_are_named():
    features, weight, offsets, _ = tensors()
    with pytest.raises(ValueError, match="doesn't fit 4 input channels"):
        deformable_convolution(features, offsets, weight, padding=1, groups=3)
    with pytest.raises(ValueError, match="offsets must be"):
        deformable_convolution(features, offsets[:, :4], weight, padding=1, groups=2)


def test_modulation_weighs_what_each_tap_reads():
    """Against a convolution with the tap's weight alone, tap by tap; and its gradient."""
    features, weight, offsets, plain = tensors()
    modulation = torch.rand(2, 9, 6, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = deformable_convolution(features, offsets, weight, padding=1, groups=2, modulation=modulation)
    expected = torch.zeros_like(plain)
    for tap in range(9):
        only = torch.zeros_like(weight)
        only[:, :, tap // 3, tap % 3] = weight[:, :, tap // 3, tap % 3]
        expected += functional.conv2d(features, only, padding=1, groups=2) * modulation[:, tap : tap + 1]
    assert torch.allclose(found, expected, atol=1e-12)
    features, offsets = features[:1, :, :3, :4].clone(), torch.full((1, 18, 3, 4), 0.3, dtype=torch.float64)
    arguments = tuple(t.requires_grad_() for t in (features, offsets, weight[:2].clone(), modulation[:1, :, :3, :4].clone()))
    assert torch.autograd.gradcheck(
        lambda f, o, w, m: deformable_convolution(f, o, w, padding=1, groups=2, modulation=m), arguments
    )
    with pytest.raises(ValueError, match="modulation must be"):
        deformable_convolution(features, offsets, weight, padding=1, groups=2, modulation=modulation)


def test_half_precision_rounds_no_places():
    """Far from the left border bfloat16 knows half pixels only."""
    features = torch.arange(100.0).expand(1, 1, 3, 100).contiguous()  # each pixel says its column
    offsets = torch.zeros(1, 2, 3, 100, dtype=torch.bfloat16)
    offsets[:, 1] = 0.125
    weight = torch.ones(1, 1, 1, 1)
    moved = deformable_convolution(features, offsets, weight)
    torch.testing.assert_close(moved[..., 1:-1], features[..., 1:-1] + 0.125, atol=1e-3, rtol=0)
    ramp = (features / 100).bfloat16()
    half = deformable_convolution(ramp, offsets, weight.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float()[..., 1:-1], moved[..., 1:-1] / 100, atol=0.004, rtol=0)
