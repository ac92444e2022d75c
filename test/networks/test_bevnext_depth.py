"""The random field over depth: the sum written out, agreement inside a colour, none across."""

import pytest
import torch

from dualview.networks.conditional_random_field_depth import (
    ConditionalRandomFieldDepth,
    DepthFieldConfig,
    color_affinity,
    patch_colors,
)


def written_out(logits, colors, weight, scale, iterations):
    """Mean field, pixel by pixel and bin by bin (float64)."""
    bins, height, width = logits.shape
    q = logits.softmax(0)
    for _ in range(iterations):
        cost = torch.zeros_like(q)
        for y in range(height):
            for x in range(width):
                for dy in (-1, 0, 1):
                    for dx in (-1, 0, 1):
                        if not (0 <= y + dy < height and 0 <= x + dx < width):
                            continue
                        apart = (colors[:, y, x] - colors[:, y + dy, x + dx]).square().sum()
                        affinity = float((-apart / (2 * scale**2)).exp())
                        for a in range(bins):
                            for b in range(bins):
                                cost[a, y, x] += weight * affinity * abs(a - b) * q[b, y + dy, x + dx]
        q = (logits - cost).softmax(0)
    return q


def test_it_is_the_mean_field_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 5, 3, 4, generator=generator)
    colors = torch.rand(1, 3, 3, 4, generator=generator) * 255
    field = ConditionalRandomFieldDepth(DepthFieldConfig(3, 60.0, 0.1), 5)
    found = field(logits, color_affinity(colors, 60.0)).softmax(1)
    expected = written_out(logits[0].double(), colors[0].double(), 0.1, 60.0, 3)
    assert torch.allclose(found[0].double(), expected, atol=1e-6)


@pytest.mark.parametrize(("own_color", "agrees"), [(100.0, True), (250.0, False)])
def test_a_pixel_follows_neighbours_of_its_own_color(own_color: float, agrees: bool) -> None:
    logits = torch.zeros(1, 8, 5, 5)
    logits[:, 2] = 4.0
    logits[0, :, 2, 2] = 0.0
    logits[0, 6, 2, 2] = 3.0  # thinks otherwise, less surely
    colors = torch.full((1, 3, 5, 5), 100.0)
    colors[..., 2, 2] = own_color
    field = ConditionalRandomFieldDepth(DepthFieldConfig(20, 20.0, 0.1), 8)
    refined = field(logits, color_affinity(colors, 20.0))
    assert (int(refined[0, :, 2, 2].argmax()) == 2) == agrees


def test_patches_are_averaged_and_everything_learns() -> None:
    images = torch.zeros(2, 3, 8, 16)
    images[:, :, :4, :4] = 200.0
    colors = patch_colors(images, 8)
    assert colors.shape == (2, 3, 1, 2) and colors[0, 0, 0].tolist() == [50.0, 0.0]
    field = ConditionalRandomFieldDepth(DepthFieldConfig(4), 6)
    logits = torch.randn(2, 6, 1, 2, requires_grad=True)
    field(logits, color_affinity(colors, 40.0)).softmax(1)[:, 0].sum().backward()
    assert logits.grad.abs().max() > 0 and field.weight.grad.abs().max() > 0
    assert [name for name, _ in field.state_dict().items()] == ["weight"]


def test_mixed_precision_does_not_reach_the_field() -> None:
    field = ConditionalRandomFieldDepth(DepthFieldConfig(4), 6)
    logits, affinity = torch.randn(1, 6, 3, 3), torch.rand(1, 9, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = field(logits, affinity)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, field(logits, affinity))
    with pytest.raises(ValueError, match="iterations >= 1"):
        DepthFieldConfig(iterations=0)
