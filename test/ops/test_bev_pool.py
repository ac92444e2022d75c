"""BEV pooling against the plain definition, in values and gradients."""

import pytest
import torch

from dualview.ops.bev_pool import bev_pool, plan_bev_pool


def random_case(dtype=torch.float64, cells=7):
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 3, 4, 2, 5, generator=generator, dtype=dtype)
    context = torch.randn(2, 3, 6, 2, 5, generator=generator, dtype=dtype)
    cell = torch.randint(-1, cells, depth.shape, generator=generator)
    return depth, context, cell


def test_equals_the_definition():
    depth, context, cell = random_case()
    product = (depth.unsqueeze(2) * context.unsqueeze(3)).permute(0, 1, 3, 4, 5, 2)  # [B, N, D, H, W, C]
    expected = torch.stack([product[cell == i].sum(0) for i in range(7)])
    assert torch.allclose(bev_pool(depth, context, plan_bev_pool(cell, 7)), expected, atol=1e-12)


def test_gradients():
    depth, context, cell = random_case()
    plan = plan_bev_pool(cell, 7)
    assert torch.autograd.gradcheck(
        lambda d, c: bev_pool(d, c, plan),
        (depth.requires_grad_(), context.requires_grad_()),
        check_batched_grad=False,
    )


def test_same_bits_every_time():
    depth, context, cell = random_case(torch.float32)
    first = bev_pool(depth, context, plan_bev_pool(cell, 7))
    assert all(torch.equal(first, bev_pool(depth, context, plan_bev_pool(cell, 7))) for _ in range(5))


def test_nothing_kept_gives_zero():
    depth, context, cell = random_case()
    assert bev_pool(depth, context, plan_bev_pool(torch.full_like(cell, -1), 7)).eq(0).all()


def test_a_plan_of_another_shape_is_refused():
    depth, context, cell = random_case()
    plan = plan_bev_pool(cell, 7)
    with pytest.raises(ValueError, match="the plan was made for depth"):
        bev_pool(depth[:1], context[:1], plan)
    with pytest.raises(ValueError, match="doesn't fit depth"):
        bev_pool(depth, context[..., :4], plan)
    with pytest.raises(ValueError, match="must be"):
        plan_bev_pool(cell[0], 7)
